"""Commands as messages name them: of a group that is not the default one they need its name."""


def command(name: str, group: str, rest: str = "") -> str:
    """The command that does something for `group`, as a person types it; `rest` is what follows the options.

    >>> command("resume", ""), command("rollback", "acme", "--to")
    ('`ratchet resume`', '`ratchet rollback --group acme --to`')
    """
    words = ("ratchet", name, f"--group {group}" if group else "", rest)
    return f"`{' '.join(filter(None, words))}`"


def decisions(group: str) -> str:
    """The commands by which a person decides about a candidate of `group` that waits for one."""
    return f"{command('approve', group, 'ADAPTER --reason WHY')}, or {command('reject', group)}"
