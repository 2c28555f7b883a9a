//! Buffers lent to busy connections, so that idle ones own none. One small stack per thread; nothing is shared.

use std::cell::RefCell;

use bytes::BytesMut;

/// Bytes of a fresh buffer: enough for an ordinary request or answer in one read.
pub const SCRATCH_BYTES: usize = 16 * 1024;
/// Buffers kept per thread.
const KEPT_MAX: usize = 64;
/// A buffer that has grown beyond this is given back to the allocator.
const KEPT_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    static STACK: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for at least `SCRATCH_BYTES`.
pub fn take() -> BytesMut {
    STACK.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(SCRATCH_BYTES))
}

/// Makes sure `buf` has room, from the stack if it owns nothing yet.
pub fn ensure(buf: &mut BytesMut) {
    if buf.capacity() == 0 {
        *buf = take();
    }
}

/// Takes the memory of an empty buffer back; a buffer with content is left alone.
pub fn give_back(buf: &mut BytesMut) {
    if buf.capacity() == 0 || !buf.is_empty() {
        return;
    }
    let mut taken = std::mem::take(buf);
    taken.clear();
    // A buffer that was advanced has lost the front of its memory; `try_reclaim` gets it back if nobody shares it.
    if taken.capacity() <= KEPT_BYTES_MAX && taken.try_reclaim(SCRATCH_BYTES) {
        STACK.with_borrow_mut(|stack| {
            if stack.len() < KEPT_MAX {
                stack.push(taken);
            }
        });
    }
}
