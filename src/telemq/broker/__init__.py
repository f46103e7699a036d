"""The queue between producers and consumers: pure rules, and the process around them."""
