"""OpenEnv over WebSocket: the environment that talks to a server, a server, and the extension that they share."""
