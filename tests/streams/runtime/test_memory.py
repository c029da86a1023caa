"""Memory that can still be had, as the files of the kernel say it."""

from pathlib import Path

from streams.runtime.memory import available_memory


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_the_least_of_the_machine_and_of_every_group_counts(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None
    write(tmp_path, "proc/meminfo", "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    assert available_memory(tmp_path) == 8000 * 1024
    write(tmp_path, "proc/self/cgroup", "0::/pod/container\n")
    group = "sys/fs/cgroup/pod"
    write(tmp_path, f"{group}/container/memory.max", "max\n")
    write(tmp_path, f"{group}/container/memory.current", "10\n")
    assert available_memory(tmp_path) == 8000 * 1024
    write(tmp_path, f"{group}/memory.max", "5000\n")
    write(tmp_path, f"{group}/memory.current", "3000\n")
    write(tmp_path, f"{group}/memory.stat", "anon 2000\ninactive_file 500\n")
    assert available_memory(tmp_path) == 2500
    write(tmp_path, f"{group}/memory.current", "9000\n")
    assert available_memory(tmp_path) == 0


def test_in_a_container_the_group_is_where_groups_are_mounted(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/memory.max", "5000\n")
    write(tmp_path, "sys/fs/cgroup/memory.current", "1000\n")
    assert available_memory(tmp_path) == 4000


def test_groups_of_the_first_version_are_read(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "5:cpu:/\n4:memory:/outside/of/the/container\n0::/\n")
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "5000\n")
    write(tmp_path, "sys/fs/cgroup/memory/memory.usage_in_bytes", "3000\n")
    write(tmp_path, "sys/fs/cgroup/memory/memory.stat", "total_inactive_file 100\n")
    assert available_memory(tmp_path) == 2100


def test_this_machine_says_how_much_it_has() -> None:
    available = available_memory()
    assert available is None or available > 0
