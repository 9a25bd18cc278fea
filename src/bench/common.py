"""What the parts of the benchmark share: processes, PostgreSQL, the floor."""

import os
import pathlib
import signal
import socket
import subprocess
import time

IDENTITY = 'd92e0c7b-72a1-4063-9ee8-2acefc240358'
API_KEY = 'seam_benchmark_0123456789abcdef'
PATH = '/user_identities/generate_instant_key'
BODY = '{"user_identity_id":"%s","max_use_count":1}' % IDENTITY
NOW = time.time()
CREATED, EXPIRES = (time.strftime('%Y-%m-%dT%H:%M:%S.946Z', time.gmtime(at))
                    for at in (NOW, NOW + 48 * 3600))
ANSWER = ('{"instant_key":{'
          '"instant_key_id":"1d05c2f6-5b6f-4a9c-b80d-1eca26be12b9",'
          '"workspace_id":"4d1c24b2-781e-4d1a-8d77-15249ad57c8a",'
          '"created_at":"' + CREATED + '",'
          '"instant_key_url":"https://ik.seam.co/ABCXYZ",'
          '"client_session_id":"bfe3b1c6-fb9e-48b1-9b5b-c762b2983af6",'
          '"user_identity_id":"' + IDENTITY + '",'
          '"expires_at":"' + EXPIRES + '"},"ok":true}')


class Failure(Exception):
    """The benchmark cannot go on; the text says why."""


class Machine:
    """Where processes run, and that none of them is left."""

    def __init__(self, let_sleep):
        cpus = sorted(os.sched_getaffinity(0))
        self.server_cpu, self.client_cpu = cpus[0], cpus[-1]
        self.started = []
        self.spinner = None if let_sleep else self.spin()

    def spin(self):
        """Keep the processors from halting, with the lowest of priorities.

        Waking a halted processor takes longer than a whole request, in a
        virtual machine above all, and hides what is to be measured.  The
        kernel weighs sessions against each other before it looks at a process's
        own priority, hence a session of the lowest weight for the loops.
        Returns its process group.
        """
        ready, told = os.pipe()
        leader = os.fork()
        if leader:
            os.close(told)
            if os.read(ready, 1) != b'.':
                raise Failure('the processors cannot be kept from halting')
            os.close(ready)
            return leader
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            autogroup = pathlib.Path('/proc/self/autogroup')
            while autogroup.exists():
                try:
                    autogroup.write_text('19')
                    break
                except BlockingIOError:     # one change in 100 ms is allowed
                    time.sleep(0.1)
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            cpu = self.server_cpu
            if self.client_cpu != cpu and os.fork() == 0:
                cpu = self.client_cpu
            os.sched_setaffinity(0, {cpu})
            os.write(told, b'.')
            os.close(told)
            while True:
                pass
        finally:
            os._exit(1)

    def start(self, cpu, command, ended_by=signal.SIGTERM, **options):
        """Start a process on one processor; stop() ends it by the signal.

        Each gets a session of its own, as PostgreSQL gives its processes one, so
        that the scheduler treats all of them alike.
        """
        def place():
            os.sched_setaffinity(0, {cpu})
        process = subprocess.Popen([str(word) for word in command],
                                   preexec_fn=place, start_new_session=True,
                                   **options)
        self.started.append((process, ended_by))
        return process

    def stop(self):
        """End what was started, the last first."""
        for process, ended_by in reversed(self.started):
            if process.poll() is None:
                process.send_signal(ended_by)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.started = []
        self.let_sleep()

    def let_sleep(self):
        """Undo spin()."""
        if self.spinner:
            os.killpg(self.spinner, signal.SIGKILL)
            os.waitpid(self.spinner, 0)
            self.spinner = None


class Cluster:
    """A throwaway PostgreSQL that finds the staged extension."""

    def __init__(self, machine, work, pg_config):
        self.machine, self.work = machine, work
        self.bin = pathlib.Path(command(pg_config, '--bindir').strip())
        self.version = command(pg_config, '--version').strip()
        self.settings = [
            (work / 'stage.conf').read_text(),
            "listen_addresses = ''", "unix_socket_directories = '%s'" % work,
            'fsync = off', 'autovacuum = off', 'max_connections = 20',
        ]
        command(self.bin / 'initdb', '--no-sync', '--auth=trust',
                '--username=postgres', '--encoding=UTF8', '--no-locale',
                '-D', work / 'data')
        self.server = None

    def start(self, *settings):
        """(Re)start with these lines beyond the usual ones."""
        self.stop()
        with open(self.work / 'data/postgresql.auto.conf', 'w') as file:
            file.write('\n'.join(self.settings + list(settings)) + '\n')
        with open(self.work / 'postgres.log', 'a') as log:
            self.server = self.machine.start(
                self.machine.client_cpu,
                [self.bin / 'postgres', '-D', self.work / 'data'],
                # fast shutdown; and PL/Python looks for its modules near the
                # python3 of PATH, which must be the system's
                ended_by=signal.SIGINT, env=dict(os.environ, PATH=os.defpath),
                stdout=log, stderr=log)
        ready = [str(self.bin / 'pg_isready'), '-q', '-h', str(self.work)]
        wait_for('PostgreSQL', lambda: subprocess.call(ready) == 0,
                 self.work / 'postgres.log')

    def stop(self):
        if self.server and self.server.poll() is None:
            self.server.send_signal(signal.SIGINT)
            self.server.wait(30)

    def session(self, *prelude):
        return Session(self, prelude)


class Session:
    """A database session: a psql that is fed statements."""

    MARK = '--end of answer--'

    def __init__(self, cluster, prelude):
        environment = dict(os.environ, PGOPTIONS='-c client_min_messages=error')
        self.psql = cluster.machine.start(
            cluster.machine.client_cpu,
            [cluster.bin / 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1',
             '-h', cluster.work, '-U', 'postgres', 'postgres'],
            env=environment, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for statement in prelude:
            self.ask(statement)

    def ask(self, statement):
        """The rows of one statement, fields split at bars."""
        self.psql.stdin.write('%s;\n\\echo %s\n' % (statement, self.MARK))
        self.psql.stdin.flush()
        rows = []
        for line in self.psql.stdout:
            line = line.rstrip('\n')
            if line == self.MARK:
                return [row.split('|') for row in rows]
            rows.append(line)
        raise Failure('psql ended: %s' % self.psql.stderr.read().strip())

    def value(self, statement):
        return self.ask(statement)[0][0]

    def close(self):
        self.psql.stdin.close()
        self.psql.wait()
        self.psql.stdout.close()
        self.psql.stderr.close()


class Floor:
    """The program floor, kept running in one mode for one URL."""

    def __init__(self, machine, work, headers, mode, base):
        self.process = machine.start(
            machine.client_cpu, [work / 'floor', mode, base + PATH, BODY, *headers],
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, *numbers):
        print(*numbers, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise Failure('floor ended')
        return [int(word) for word in line.split()]

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def command(*words):
    """Run a command to its end; Failure with its output unless it succeeds."""
    done = subprocess.run([str(word) for word in words], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise Failure('%s: %s' % (words[0], done.stdout.strip()))
    return done.stdout


def wait_for(name, condition, log):
    """Wait until condition() holds, 30 seconds at most."""
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise Failure('%s does not start:\n%s' % (name, log.read_text()))
        time.sleep(0.05)


def fdatasync_ms(folder):
    """What a commit waits for: the median, and the 99th percentile."""
    times = []
    with open(folder / 'synced', 'wb') as file:
        os.posix_fallocate(file.fileno(), 0, 8192 * 100)
        os.fsync(file.fileno())
        for i in range(100):
            os.pwrite(file.fileno(), bytes(8192), i * 8192)
            start = time.monotonic()
            os.fdatasync(file.fileno())
            times.append((time.monotonic() - start) * 1000)
    return quantile(times, 0.5), quantile(times, 0.99)


def quantile(values, share):
    values = sorted(values)
    return values[min(int(len(values) * share), len(values) - 1)]


def free_ports(count):
    sockets = [socket.create_server(('127.0.0.1', 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def rotated(items, turn):
    turn %= len(items)
    return items[turn:] + items[:turn]
