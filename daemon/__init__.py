"""Floor 4: the processes: command line, supervisor, registry, promotion, gateway, inference server."""
