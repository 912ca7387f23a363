/* The standard library's panic hook names these two for backtraces, which a stripped program has no tables for. Here they
 * find nothing; from zig's libunwind they would bring 37 KB. */

__attribute__((weak)) int _Unwind_Backtrace(void *callback, void *argument)
{
    (void)callback;
    (void)argument;
    return 5; /* _URC_END_OF_STACK */
}

__attribute__((weak)) unsigned long _Unwind_GetIP(void *context)
{
    (void)context;
    return 0;
}
