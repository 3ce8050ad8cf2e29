"""A chat on a real terminal."""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time


class Terminal:
    """A program on a pseudo terminal, and all that it has written."""

    def __init__(self, *command):
        master, slave = pty.openpty()
        self.master, self.text = master, ""
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, close_fds=True
        )
        os.close(slave)

    def until(self, pattern, start=0, seconds=60):
        """Read until the text from ``start`` on matches; returns where the match ends."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text[start:])):
            assert time.monotonic() < deadline, self.text
            if select.select([self.master], [], [], 0.1)[0]:
                self.text += os.read(self.master, 1 << 16).decode(errors="replace")
        return start + found.end()

    def interrupt(self):
        """Press Ctrl-C until it ends: between writing a prompt and reading the line, Python is deaf."""
        for _ in range(10):
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(2)
                return

    def type(self, text):
        os.write(self.master, text.encode())


def test_ctrl_c_at_the_prompt_ends_the_chat_quietly(two_layers):
    options = ["--context", "64", "--threads", "1"]
    terminal = Terminal(sys.executable, "-m", "terazi", "run", str(two_layers), *options)
    try:
        prompt = terminal.until("\n> ")
        terminal.interrupt()
        assert terminal.process.wait(20) == 130
        terminal.until(r"\n", prompt)
        assert "error" not in terminal.text
        assert "again" not in terminal.text
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.master)


def test_an_interrupted_answer_ends_the_turn_and_not_the_chat(two_layers):
    options = ["--max-tokens", "400", "--context", "512", "--threads", "1", "--seed", "3"]
    terminal = Terminal(sys.executable, "-m", "terazi", "run", str(two_layers), *options)
    try:
        prompt = terminal.until("> ")
        terminal.type("Tell me a story\n")
        terminal.until(r"story\r\n(.|\n){40}", prompt)
        terminal.process.send_signal(signal.SIGINT)
        stopped = terminal.until(r"\n> ", prompt)
        assert "tokens/s" not in terminal.text[prompt:stopped]
        terminal.type("Again\n")
        again = terminal.until(r"Again\r\n(.|\n){10}", stopped)
        terminal.process.send_signal(signal.SIGINT)
        terminal.until(r"\n> ", again)
        terminal.type("/bye\n")
        assert terminal.process.wait(20) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.master)
