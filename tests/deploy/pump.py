"""Stands between a program and its input: ``pump.py count|flip|cut NUMBER FILE PROGRAM …``.

``count`` appends the number of bytes to FILE, ``flip`` changes a bit of byte NUMBER, ``cut`` ends
the program after NUMBER bytes.
"""

import os
import subprocess
import sys
import threading

mode, number, file = sys.argv[1], int(sys.argv[2]), sys.argv[3]
program = subprocess.Popen(sys.argv[4:], stdin=subprocess.PIPE)
passed = 0


def pump():
    global passed  # noqa: PLW0603
    while data := os.read(0, 1 << 16):
        if mode == "flip" and passed <= number < passed + len(data):
            place = number - passed
            data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        if mode == "cut" and passed + len(data) > number:
            os.write(program.stdin.fileno(), data[: number - passed])
            program.kill()
            return
        passed += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(program.stdin.fileno(), view) :]
    program.stdin.close()


threading.Thread(target=pump, daemon=True).start()
status = program.wait()
with open(file, "a") as counts:  # noqa: PTH123
    counts.write(f"{passed}\n")
if mode == "cut" and status < 0:
    print("Connection reset by peer", file=sys.stderr, flush=True)
os._exit(255 if status < 0 else status)
