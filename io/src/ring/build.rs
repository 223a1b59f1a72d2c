//! The kernel's side of a ring, in the cheapest mode that this kernel knows.

use io_uring::IoUring;

/// Asks for the cheapest mode first; an older kernel gets what it knows.
pub(super) fn build(depth: u32) -> std::io::Result<IoUring> {
    let mut deferred = IoUring::builder();
    deferred
        .setup_cqsize(depth * 4)
        .setup_submit_all()
        .setup_single_issuer();
    deferred
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .dontfork();
    let mut cooperative = IoUring::builder();
    cooperative.setup_cqsize(depth * 4).setup_submit_all();
    cooperative
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .dontfork();
    let mut plain = IoUring::builder();
    plain.setup_cqsize(depth * 4).dontfork();
    let unknown = |error: &std::io::Error| error.raw_os_error() == Some(libc::EINVAL);
    match deferred.build(depth) {
        Err(error) if unknown(&error) => match cooperative.build(depth) {
            Err(error) if unknown(&error) => plain.build(depth),
            other => other,
        },
        other => other,
    }
}
