"""Use a processor and never answer."""

while True:
    pass
