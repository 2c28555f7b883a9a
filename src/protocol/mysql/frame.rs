//! Frames: the 4-byte header that precedes every payload, and how a payload of 16 MB or more is cut.
//!
//! A payload of `PAYLOAD_BYTES_MAX` bytes is continued by the next frame; a payload whose length is a multiple of it ends with
//! an empty frame. Sequence numbers count frames, modulo 256, from 0 in every command.

use bytes::{BufMut, BytesMut};

/// Bytes of a frame header: three of length, one of sequence number.
pub const HEADER_BYTES: usize = 4;
/// The longest payload one frame can carry; a frame of this length is continued by the next.
pub const PAYLOAD_BYTES_MAX: usize = 0xFF_FFFF;

/// A decoded frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of payload that follow the header.
    pub payload_len: usize,
    /// The frame's sequence number.
    pub seq: u8,
}

impl FrameHeader {
    /// Reads a header from the start of `bytes`; `None` if fewer than four bytes are there.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<FrameHeader> {
        match bytes {
            [a, b, c, seq, ..] => Some(FrameHeader {
                payload_len: usize::from(*a) | usize::from(*b) << 8 | usize::from(*c) << 16,
                seq: *seq,
            }),
            _ => None,
        }
    }

    /// The four bytes of this header. `payload_len` above `PAYLOAD_BYTES_MAX` is cut to 24 bits; callers split first.
    #[inline]
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        [self.payload_len as u8, (self.payload_len >> 8) as u8, (self.payload_len >> 16) as u8, self.seq]
    }

    /// Header and payload together.
    #[inline]
    pub fn frame_len(self) -> usize {
        HEADER_BYTES + self.payload_len
    }

    /// Whether the next frame continues this payload.
    #[inline]
    pub fn continues(self) -> bool {
        self.payload_len == PAYLOAD_BYTES_MAX
    }
}

/// Appends `payload` to `out` as one packet (several frames if it is long) and advances `seq` past its frames.
pub fn encode_packet(out: &mut BytesMut, seq: &mut u8, payload: &[u8]) {
    let mut rest = payload;
    loop {
        let take = rest.len().min(PAYLOAD_BYTES_MAX);
        let (head, tail) = rest.split_at(take);
        out.reserve(HEADER_BYTES + take);
        out.put_slice(&FrameHeader { payload_len: take, seq: *seq }.encode());
        out.put_slice(head);
        *seq = seq.wrapping_add(1);
        rest = tail;
        if take < PAYLOAD_BYTES_MAX {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_a_round_trip() {
        let header = FrameHeader { payload_len: 0x01_02_03, seq: 7 };
        assert_eq!(FrameHeader::parse(&header.encode()), Some(header));
        assert_eq!(FrameHeader::parse(&[1, 2, 3]), None);
    }

    #[test]
    fn a_payload_of_exactly_the_limit_ends_with_an_empty_frame() {
        let mut out = BytesMut::new();
        let mut seq = 0;
        encode_packet(&mut out, &mut seq, &vec![1; PAYLOAD_BYTES_MAX]);
        assert_eq!(seq, 2);
        assert_eq!(out.len(), PAYLOAD_BYTES_MAX + 2 * HEADER_BYTES);
        assert_eq!(&out[out.len() - 4..], &[0, 0, 0, 1]);
    }
}
