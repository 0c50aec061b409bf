# Python, with threads, a subprocess, and a block that ctypes loses.
import ctypes
import json
import subprocess
import sys
import threading

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]


def work(number, out):
    out[number] = len(json.dumps({str(i): [i] * (i % 7) for i in range(2000)}))


def main():
    out = {}
    threads = [threading.Thread(target=work, args=(i, out)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(int(sys.argv[1])):
        libc.malloc(13337)
    text = subprocess.run(["/bin/echo", "from a child"], capture_output=True, check=True).stdout
    print(sorted(out.values()), text.decode().strip())


main()
