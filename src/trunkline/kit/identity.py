"""A user for the files that one thread makes: the thread of a root process acts as that user towards file systems, and keeps root's powers over files.

So what is prepared for a program that will run as somebody else belongs to them from the start, wherever it is made. Linux only: setfsuid(2) is a
thread's own, and takes its powers over files away, which capset(2) gives back. Programs that the thread starts are root's again (execve(2)).
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_thread = threading.local()
_VERSION_3 = 0x20080522  # of capset(2): two words for each set


@contextmanager
def files_of(user: int) -> Iterator[None]:
    """Let what this thread makes belong to a user and a group of that number; 0 is this process's own. Needs root."""
    if not user:
        yield
        return
    _act_as(user, user)
    _thread.acts_as = user
    try:
        yield
    finally:
        _thread.acts_as = 0
        _act_as(os.geteuid(), os.getegid())


@contextmanager
def files_of_the_process() -> Iterator[None]:
    """Let what this thread makes belong to this process's own user again for a while: what is for others than the program, on whatever file system."""
    user = getattr(_thread, "acts_as", 0)
    if not user:
        yield
        return
    _act_as(os.geteuid(), os.getegid())
    try:
        yield
    finally:
        _act_as(user, user)


def hand_over(folder: str, user: int) -> bool:
    """Give a folder and all in it to a user and group of that number, unless the folder is theirs; say whether it was not. Needs root.

    Links are given and not followed.
    """
    if os.lstat(folder).st_uid == user:
        return False
    for above, folders, files in os.walk(folder, topdown=False):
        for name in (*folders, *files):
            os.lchown(f"{above}/{name}", user, user)
    os.lchown(folder, user, user)
    return True


def _act_as(user: int, group: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.setfsgid(group)
    libc.setfsuid(user)
    head = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    if libc.capget(head, sets) == 0:
        sets[0], sets[3] = sets[1], sets[4]
        if libc.capset(head, sets) == 0:
            return
    raise OSError(ctypes.get_errno(), "the powers over files can't be kept")
