"""A service that does what each line of its stdin says, with a C library: planted_service.py LIBRARY."""
import ctypes
import sys

library = ctypes.CDLL(sys.argv[1])
library.remember.argtypes = [ctypes.c_char_p]
library.score.restype = ctypes.c_double
for line in sys.stdin:
    word, number = line.split()
    if word == "remember":
        for turn in range(int(number)):
            library.remember(b"user %d" % turn)
    else:
        library.score(int(number))
    print("done", flush=True)
