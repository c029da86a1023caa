"""Where alternatives run: environments, the processes that hold them, and the harness that renders them as chat."""
