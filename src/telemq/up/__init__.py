"""The whole pipeline on one machine, as processes under one supervisor."""
