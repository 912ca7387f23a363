//! Whether the machine's calendar clock is set.

/// True if something (an NTP daemon, a GPS receiver's) has set the calendar clock and vouches for it: the kernel's
/// `STA_UNSYNC` is clear (`adjtimex(2)`). The kernel sets it again when nobody has confirmed the time for nine hours.
pub fn is_set() -> bool {
    /// More than `struct timex` takes on any architecture.
    const ROOM: usize = 64;
    let mut timex = [0_u64; ROOM];
    // SAFETY: with `modes`, the first field, zero the kernel only writes into the buffer, which is larger than its
    // structure and aligned for it.
    let state = unsafe { libc::syscall(libc::SYS_adjtimex, timex.as_mut_ptr()) };
    /// `TIME_ERROR` of linux/timex.h.
    const UNSYNCHRONISED: libc::c_long = 5;
    (0..UNSYNCHRONISED).contains(&state)
}
