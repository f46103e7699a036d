"""`telemq top`: a live view of brokers and their peers."""
