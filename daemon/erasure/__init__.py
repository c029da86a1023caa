"""Erasing a principal or an episode: `request` asks for it, `carrying_out` does it, `files` finds what holds it."""
