"""What people without a browser ask of the store: `telemq gpus` and `telemq query`."""
