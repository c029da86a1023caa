"""The first layer: from an agent's events to stored transitions, and the sandboxes that alternatives run in.

Imports no other layer, and no torch. Agents import `streams.producer` and `streams.events`; nothing else is public.
"""
