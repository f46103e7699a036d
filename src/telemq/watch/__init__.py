"""Several brokers watched from outside: their documents read, rates and trouble worked out."""
