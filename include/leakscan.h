/* leakscan.h: asks leakscan for a scan from inside the program.
 *
 * Nothing is linked for it. The function below is weak: in a program that was started under leakscan it is
 * libleakscan.so's; in every other run its address is null. So a program calls it through the helper, and runs
 * unchanged where leakscan is not:
 *
 *     #include <leakscan.h>
 *
 *     while (serve_one_request(&state)) {
 *         if (++requests % 10000 == 0)
 *             LEAKSCAN_SCAN();                // nothing at all without leakscan
 *     }
 *
 *     if (LEAKSCAN_SCAN() == 0 && leakscan_is_loaded())
 *         fputs("the scan could not be made; the report says why\n", stderr);
 *
 * C89 and later, C++98 and later; gcc and clang. This file may be copied into the program's own tree.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef LEAKSCAN_H
#define LEAKSCAN_H

#ifdef __cplusplus
extern "C" {
#endif

/* Scans now, and returns when the result stands in the report file (/tmp/leakscan.PID unless log_path says otherwise).
 * The other threads are stopped for the snapshot only, not for the scan. A block without a pointer to it is "suspected"
 * the first time, and "confirmed" when a second scan finds it so again. 1: a scan was made; 0: it was not.
 *
 * Not for a signal handler, nor for the child of a vfork. Null where the program does not run under leakscan. */
extern int leakscan_scan(void) __attribute__((weak));

/* Its address, null without leakscan. */
static __inline__ __attribute__((unused)) int (*leakscan_scan_address(void))(void)
{
#if defined(__x86_64__) && !defined(__PIC__)
    /* Code that is not position-independent has the linker put 0 for a weak name that nobody defines at link time, for
     * ever. Through the GOT it stays ld.so's to fill in. */
    int (*address)(void);
    __asm__(".weak leakscan_scan\n\tmovq leakscan_scan@GOTPCREL(%%rip), %0" : "=r"(address));
    return address;
#else
    return &leakscan_scan;
#endif
}

/* Whether the program runs under leakscan: 1 or 0. */
static __inline__ __attribute__((unused)) int leakscan_is_loaded(void)
{
    return leakscan_scan_address() != 0;
}

/* leakscan_scan() where the program runs under leakscan; else 0, and nothing happens. */
static __inline__ __attribute__((unused)) int leakscan_scan_if_loaded(void)
{
    int (*address)(void) = leakscan_scan_address();
    return address != 0 ? address() : 0;
}

#define LEAKSCAN_SCAN() leakscan_scan_if_loaded()

#ifdef __cplusplus
}
#endif

#endif
