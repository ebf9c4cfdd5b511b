"""Contract of Files and File."""

from __future__ import annotations

from pathlib import Path

import pytest

from metadata.environment import Environment
from tests.contract.environments import FACTORIES, World


@pytest.fixture(params=list(FACTORIES))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return FACTORIES[request.param](str(tmp_path))


def test_append_joins_parts_at_the_end_and_reports_the_size(world: World) -> None:
    async def main(environment: Environment) -> None:
        file = environment.files.open(f"{world.directory}/log", create=True)
        assert file.size == 0
        assert file.append([b"ab", bytearray(b"cd"), memoryview(b"ef")]) == 6
        assert file.append([b"", b"g"]) == 7
        assert file.append([]) == 7
        assert (file.size, file.pread(0, 100)) == (7, b"abcdefg")
        file.close()

    world.run(main)


def test_append_takes_more_parts_than_one_system_call(world: World) -> None:
    async def main(environment: Environment) -> None:
        file = environment.files.open(f"{world.directory}/log", create=True)
        parts = [n.to_bytes(2, "big") for n in range(5_000)]
        assert file.append(parts) == 10_000
        assert file.pread(0, 10_000) == b"".join(parts)
        file.close()

    world.run(main)


def test_pread_is_short_only_at_the_end(world: World) -> None:
    async def main(environment: Environment) -> None:
        file = environment.files.open(f"{world.directory}/log", create=True)
        file.append([bytes(range(100))])
        assert file.pread(90, 5) == bytes(range(90, 95))
        assert file.pread(90, 50) == bytes(range(90, 100))
        assert file.pread(100, 10) == b""
        assert file.pread(500, 10) == b""
        file.close()

    world.run(main)


def test_pwrite_overwrites_in_place_and_may_extend(world: World) -> None:
    async def main(environment: Environment) -> None:
        file = environment.files.open(f"{world.directory}/index", create=True)
        file.append([b"0123456789"])
        file.pwrite(2, b"xx")
        assert (file.size, file.pread(0, 20)) == (10, b"01xx456789")
        file.pwrite(12, b"end")
        assert (file.size, file.pread(0, 20)) == (15, b"01xx456789\0\0end")
        assert file.append([b"!"]) == 16
        file.close()

    world.run(main)


def test_truncate_cuts_and_extends_with_zeros(world: World) -> None:
    async def main(environment: Environment) -> None:
        file = environment.files.open(f"{world.directory}/log", create=True)
        file.append([b"0123456789"])
        file.truncate(4)
        assert (file.size, file.append([b"ab"]), file.pread(0, 20)) == (4, 6, b"0123ab")
        file.truncate(8)
        assert (file.size, file.pread(0, 20)) == (8, b"0123ab\0\0")
        file.close()

    world.run(main)


def test_content_stays_after_sync_and_close(world: World) -> None:
    async def main(environment: Environment) -> None:
        path = f"{world.directory}/log"
        file = environment.files.open(path, create=True)
        file.append([b"kept"])
        file.sync()
        file.close()
        environment.files.sync_directory(world.directory)
        again = environment.files.open(path)
        assert (again.path, again.size, again.pread(0, 10)) == (path, 4, b"kept")
        again.close()
        assert environment.files.size(path) == 4

    world.run(main)


def test_opening_what_is_not_there_needs_create(world: World) -> None:
    async def main(environment: Environment) -> None:
        with pytest.raises(FileNotFoundError):
            environment.files.open(f"{world.directory}/missing")
        with pytest.raises(FileNotFoundError):
            environment.files.open(f"{world.directory}/no/folder", create=True)

    world.run(main)


def test_create_keeps_what_exists(world: World) -> None:
    async def main(environment: Environment) -> None:
        path = f"{world.directory}/log"
        first = environment.files.open(path, create=True)
        first.append([b"old"])
        first.close()
        second = environment.files.open(path, create=True)
        assert second.size == 3
        second.close()

    world.run(main)


def test_a_read_only_file_refuses_writes(world: World) -> None:
    async def main(environment: Environment) -> None:
        path = f"{world.directory}/log"
        environment.files.open(path, create=True).close()
        file = environment.files.open(path, read_only=True)
        with pytest.raises(OSError):  # noqa: PT011 - the errno differs between systems
            file.append([b"x"])
        assert file.size == 0
        file.close()

    world.run(main)


def test_directories_are_listed_sorted_and_removed_whole(world: World) -> None:
    async def main(environment: Environment) -> None:
        files = environment.files
        files.make_directories(f"{world.directory}/a/b/c")
        files.make_directories(f"{world.directory}/a/b/c")
        for name in ("z", "m", "b2"):
            files.open(f"{world.directory}/a/{name}", create=True).close()
        assert files.list_directory(f"{world.directory}/a") == ["b", "b2", "m", "z"]
        assert files.is_directory(f"{world.directory}/a/b")
        assert not files.is_directory(f"{world.directory}/a/m")
        files.remove(f"{world.directory}/a/m")
        assert not files.exists(f"{world.directory}/a/m")
        files.remove_tree(f"{world.directory}/a")
        assert not files.exists(f"{world.directory}/a")
        with pytest.raises(FileNotFoundError):
            files.list_directory(f"{world.directory}/a")
        with pytest.raises(FileNotFoundError):
            files.remove(f"{world.directory}/a")

    world.run(main)


def test_rename_replaces_a_file_and_moves_a_directory(world: World) -> None:
    async def main(environment: Environment) -> None:
        files = environment.files
        for name in ("old", "new"):
            file = files.open(f"{world.directory}/{name}", create=True)
            file.append([name.encode()])
            file.close()
        files.rename(f"{world.directory}/old", f"{world.directory}/new")
        file = files.open(f"{world.directory}/new")
        assert file.pread(0, 10) == b"old"
        file.close()
        files.make_directories(f"{world.directory}/t-0")
        files.open(f"{world.directory}/t-0/log", create=True).close()
        files.rename(f"{world.directory}/t-0", f"{world.directory}/t-0-delete")
        assert files.list_directory(world.directory) == ["new", "t-0-delete"]
        assert files.exists(f"{world.directory}/t-0-delete/log")

    world.run(main)


def test_an_open_file_survives_the_rename_of_its_path(world: World) -> None:
    async def main(environment: Environment) -> None:
        files = environment.files
        file = files.open(f"{world.directory}/a", create=True)
        files.rename(f"{world.directory}/a", f"{world.directory}/b")
        file.append([b"through the old handle"])
        file.close()
        assert files.size(f"{world.directory}/b") == 22

    world.run(main)


def test_a_volume_reports_its_space(world: World) -> None:
    async def main(environment: Environment) -> None:
        space = environment.files.space(world.directory)
        assert 0 <= space.usable_bytes <= space.total_bytes
        assert space.total_bytes > 0
        with pytest.raises(FileNotFoundError):
            environment.files.space(f"{world.directory}/none")

    world.run(main)


def test_a_directory_is_locked_once(world: World) -> None:
    async def main(environment: Environment) -> None:
        lock = environment.files.lock_directory(world.directory)
        with pytest.raises(BlockingIOError):
            environment.files.lock_directory(world.directory)
        lock.release()
        environment.files.lock_directory(world.directory).release()

    world.run(main)
