"""The environment `toolbox`: a folder with tasks, tools, a state that they work on, and a check."""
