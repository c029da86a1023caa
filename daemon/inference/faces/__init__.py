"""Other APIs on the engine: Anthropic's Messages and OpenAI's Responses, each translated into a chat completion.

A face has a module for requests and one for replies; `routes.py` serves them. The messages of a request are read by
`streams.calls.faces`, which also reads captured calls: what a call is trained on is what was rendered for it.
"""
