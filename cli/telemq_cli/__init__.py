"""The command line of telemq: parse, call one service, render."""
