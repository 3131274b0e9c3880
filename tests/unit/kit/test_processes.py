"""Programs are started, streamed and cleared away."""

import os

from trunkline.kit import processes


def test_output_of_several_programs_comes_in_their_order() -> None:
    done = processes.outputs([["sh", "-c", "sleep 0.1; echo a"], ["sh", "-c", "echo b; exit 3"], ["no-such-program-here"]])

    assert done == [(0, b"a\n"), (3, b"b\n"), (127, b"")]


def test_fifty_megabytes_stream_through_in_pieces() -> None:
    total, largest = 0, 0

    def sink(data: bytes) -> None:
        nonlocal total, largest
        total, largest = total + len(data), max(largest, len(data))

    ended = processes.run(["head", "-c", "50000000", "/dev/zero"], {"PATH": os.environ["PATH"]}, sink)

    assert ended.exit_code == 0
    assert total == 50_000_000
    assert largest <= processes.CHUNK


def test_a_program_killed_by_a_signal_has_the_shells_exit_code() -> None:
    assert processes.run(["sh", "-c", "kill -9 $$"], dict(os.environ), lambda _: None).exit_code == 137
