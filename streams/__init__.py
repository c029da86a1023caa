"""The daemon's first layer: from an agent's events to stored transitions, and sandboxes that alternatives run in.

Imports `ratchet_client`, which agents install, and no other layer; no torch. Nothing here is public.
"""
