//! What passes between a client of the MySQL protocol and a server, frame by frame: which request a frame is, and which part of which answer. No I/O.
//!
//! ```text
//!            greeting, response, more …            OK
//!   Login ────────────────────────────────────────────────► Idle ◄───────────────┐
//!     │ SSL request                                           │ request          │ last packet of the answer
//!     ▼                                                       ▼                  │
//!   Opaque (nothing is read any more)                     Answering: Head ─► Definitions ─► Rows
//! ```
//! Several requests may wait for their answers: they are answered in order.

use std::collections::VecDeque;

/// Which end of the proxied connection a frame comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The client of the server: belay.
    Client,
    /// The server.
    Server,
}

/// What a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first packet of a server.
    Greeting,
    /// The client's answer to it, with the name of the account in its bytes.
    LoginResponse,
    /// Any other packet of a login.
    LoginMore,
    /// The OK that ends a login.
    LoginOk,
    /// A request of the client.
    Request,
    /// The rest of a request: a further frame of it, or a file.
    RequestRest,
    /// An OK that is an answer, or ends one result of several.
    Ok,
    /// An ERR.
    Err,
    /// The count of columns, or what else begins an answer without being OK or ERR.
    Head,
    /// A column, or the EOF behind the columns.
    Definition,
    /// The first row.
    FirstRow,
    /// Any other row.
    Row,
    /// What ends the rows.
    End,
    /// What cannot be read: TLS, or an answer to nothing.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Login,
    Idle,
    Head,
    Definitions { left: usize, then_rows: bool },
    Rows { any: bool },
    Opaque,
}

/// One connection as an observer sees it.
#[derive(Debug)]
pub struct Conversation {
    state: State,
    deprecate_eof: bool,
    greeted: bool,
    answered_greeting: bool,
    waiting: VecDeque<Vec<u8>>,
    /// The login's response, then the request whose answer is passing.
    current: Vec<u8>,
    answer_bytes: usize,
}

const SSL: u32 = 1 << 11;
const DEPRECATE_EOF: u32 = 1 << 24;
const MORE_RESULTS: u16 = 8;
const STMT_PREPARE: u8 = 0x16;
/// COM_QUIT, COM_STMT_SEND_LONG_DATA, COM_STMT_CLOSE.
const UNANSWERED: [u8; 3] = [0x01, 0x18, 0x19];
/// COM_CHANGE_USER.
const CHANGE_USER: u8 = 0x11;
/// COM_STATISTICS, which is answered by a text.
const STATISTICS: u8 = 0x09;
/// COM_STMT_FETCH, which is answered by rows alone.
const STMT_FETCH: u8 = 0x1c;

impl Default for Conversation {
    fn default() -> Conversation {
        Conversation {
            state: State::Login,
            deprecate_eof: false,
            greeted: false,
            answered_greeting: false,
            waiting: VecDeque::new(),
            current: Vec::new(),
            answer_bytes: 0,
        }
    }
}

impl Conversation {
    /// The length of the frame (with its header) that `bytes` begin with, if it is all there. What can't be read is a frame as it is.
    pub fn frame_len(&self, bytes: &[u8]) -> Option<usize> {
        if self.state == State::Opaque {
            return Some(bytes.len()).filter(|n| *n > 0);
        }
        let [a, b, c, _, ..] = bytes else { return None };
        let len = 4 + (usize::from(*a) | usize::from(*b) << 8 | usize::from(*c) << 16);
        (bytes.len() >= len).then_some(len)
    }

    /// The request that the last frame belonged to, command byte included; the response of the login before there was one.
    pub fn request(&self) -> &[u8] {
        &self.current
    }

    /// Bytes of the present answer up to the last frame, that one included.
    pub fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    /// Takes one frame and says what it is.
    pub fn frame(&mut self, from: From, frame: &[u8]) -> Frame {
        if self.state == State::Opaque {
            return Frame::Unknown;
        }
        let (header, payload) = frame.split_at(frame.len().min(4));
        match from {
            From::Client => self.of_client(header.get(3).copied().unwrap_or(0), payload),
            From::Server => {
                self.answer_bytes += frame.len();
                self.of_server(payload)
            }
        }
    }

    fn of_client(&mut self, seq: u8, payload: &[u8]) -> Frame {
        if self.state == State::Login {
            if self.answered_greeting || !self.greeted {
                return Frame::LoginMore;
            }
            self.answered_greeting = true;
            let caps = payload.first_chunk::<4>().map_or(0, |b| u32::from_le_bytes(*b));
            if caps & SSL != 0 && payload.len() <= 32 {
                self.state = State::Opaque;
                return Frame::Unknown;
            }
            self.deprecate_eof = caps & DEPRECATE_EOF != 0;
            self.current = payload.to_vec();
            return Frame::LoginResponse;
        }
        if seq != 0 {
            return Frame::RequestRest;
        }
        let code = payload.first().copied().unwrap_or(0);
        if UNANSWERED.contains(&code) {
            if self.state == State::Idle {
                self.current = payload.to_vec();
            }
            return Frame::Request;
        }
        self.waiting.push_back(payload.to_vec());
        if self.state == State::Idle {
            self.next_answer();
        }
        Frame::Request
    }

    /// The request that `frame` was just told of, which may have to wait for the answers of others.
    pub fn last_request(&self) -> &[u8] {
        self.waiting.back().unwrap_or(&self.current)
    }

    fn next_answer(&mut self) {
        self.answer_bytes = 0;
        self.state = State::Idle;
        if let Some(request) = self.waiting.pop_front() {
            self.state = match request.first() {
                Some(&CHANGE_USER) => State::Login,
                Some(&STMT_FETCH) => State::Rows { any: false },
                _ => State::Head,
            };
            self.answered_greeting = true;
            self.current = request;
        }
    }

    fn of_server(&mut self, p: &[u8]) -> Frame {
        let first = p.first().copied().unwrap_or(0);
        match self.state {
            State::Login if !self.greeted => {
                self.greeted = true;
                Frame::Greeting
            }
            State::Login => match first {
                0x00 => {
                    self.next_answer();
                    Frame::LoginOk
                }
                0xff => {
                    self.next_answer();
                    Frame::Err
                }
                _ => Frame::LoginMore,
            },
            State::Head => self.head(first, p),
            State::Definitions { left, then_rows } => {
                self.state = match (left.saturating_sub(1), then_rows) {
                    (0, true) => State::Rows { any: false },
                    (0, false) => {
                        self.next_answer();
                        return Frame::Definition;
                    }
                    (left, _) => State::Definitions { left, then_rows },
                };
                Frame::Definition
            }
            State::Rows { any } => self.row(any, first, p),
            // An error that the server says unasked, before it closes.
            State::Idle if first == 0xff => Frame::Err,
            State::Idle | State::Opaque => Frame::Unknown,
        }
    }

    fn head(&mut self, first: u8, p: &[u8]) -> Frame {
        let command = self.current.first().copied().unwrap_or(0);
        match (command, first) {
            (_, 0xff) => {
                self.next_answer();
                Frame::Err
            }
            (STATISTICS, _) => {
                self.next_answer();
                Frame::Head
            }
            (STMT_PREPARE, 0x00) => {
                let number = |at: usize| p.get(at..at + 2).map_or(0, |b| usize::from(b[0]) | usize::from(b[1]) << 8);
                let eof = usize::from(!self.deprecate_eof);
                let left: usize = [number(5), number(7)].iter().filter(|n| **n > 0).map(|n| n + eof).sum();
                if left == 0 {
                    self.next_answer();
                } else {
                    self.state = State::Definitions { left, then_rows: false };
                }
                Frame::Ok
            }
            (_, 0x00) => {
                if status_of_ok(p) & MORE_RESULTS == 0 {
                    self.next_answer();
                }
                Frame::Ok
            }
            // COM_SET_OPTION and its kin.
            (_, 0xfe) => {
                self.next_answer();
                Frame::End
            }
            // A file is asked for; the OK or ERR behind it comes as another head.
            (_, 0xfb) => Frame::Head,
            _ => {
                let columns = match p {
                    [0xfc, a, b, ..] => usize::from(*a) | usize::from(*b) << 8,
                    _ => usize::from(first),
                };
                self.state = State::Definitions { left: columns + usize::from(!self.deprecate_eof), then_rows: true };
                Frame::Head
            }
        }
    }

    fn row(&mut self, any: bool, first: u8, p: &[u8]) -> Frame {
        if first == 0xff {
            self.next_answer();
            return Frame::Err;
        }
        if first == 0xfe && (p.len() < 9 || self.deprecate_eof && p.len() < 0xff_ffff) {
            let eof_status = || p.get(3..5).map_or(0, |b| u16::from(b[0]) | u16::from(b[1]) << 8);
            let status = if self.deprecate_eof { status_of_ok(p) } else { eof_status() };
            if status & MORE_RESULTS == 0 {
                self.next_answer();
            } else {
                self.state = State::Head;
            }
            return Frame::End;
        }
        self.state = State::Rows { any: true };
        if any { Frame::Row } else { Frame::FirstRow }
    }
}

/// The status flags behind the two length-encoded numbers of an OK packet.
fn status_of_ok(p: &[u8]) -> u16 {
    let width = |at: usize| match p.get(at) {
        Some(0xfc) => 3,
        Some(0xfd) => 4,
        Some(0xfe) => 9,
        _ => 1,
    };
    let affected = 1;
    let insert_id = affected + width(affected);
    let status = insert_id + width(insert_id);
    p.get(status..status + 2).map_or(0, |b| u16::from(b[0]) | u16::from(b[1]) << 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(seq: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = (payload.len() as u32).to_le_bytes()[..3].to_vec();
        out.push(seq);
        out.extend_from_slice(payload);
        out
    }

    fn logged_in(caps: u32) -> Conversation {
        let mut c = Conversation::default();
        assert_eq!(c.frame(From::Server, &frame(0, b"\x0agreeting")), Frame::Greeting);
        let mut response = caps.to_le_bytes().to_vec();
        response.resize(40, 0);
        assert_eq!(c.frame(From::Client, &frame(1, &response)), Frame::LoginResponse);
        assert_eq!(c.frame(From::Server, &frame(2, &[0xfe])), Frame::LoginMore);
        assert_eq!(c.frame(From::Client, &frame(3, b"scramble")), Frame::LoginMore);
        assert_eq!(c.frame(From::Server, &frame(4, &[0, 0, 0, 2, 0, 0, 0])), Frame::LoginOk);
        c
    }

    fn server(c: &mut Conversation, payloads: &[&[u8]]) -> Vec<Frame> {
        payloads.iter().map(|p| c.frame(From::Server, &frame(1, p))).collect()
    }

    #[test]
    fn rows_are_followed_with_and_without_eof_packets() {
        use Frame::{Definition, End, FirstRow, Head, Ok, Row};
        let mut c = logged_in(DEPRECATE_EOF);
        assert_eq!(c.frame(From::Client, &frame(0, b"\x03SELECT 1")), Frame::Request);
        assert_eq!(c.request(), b"\x03SELECT 1");
        let end = [0xfe, 0, 0, 2, 0, 0, 0];
        assert_eq!(server(&mut c, &[&[1], b"def", b"\x011", b"\x012", &end]), [Head, Definition, FirstRow, Row, End]);
        assert_eq!(c.frame(From::Client, &frame(0, b"\x03DO 1")), Frame::Request);
        assert_eq!(server(&mut c, &[&[0, 0, 0, 2, 0, 0, 0]]), [Ok]);
        let mut c = logged_in(0);
        c.frame(From::Client, &frame(0, b"\x03SELECT 1"));
        let eof = [0xfe, 0, 0, 2, 0];
        assert_eq!(
            server(&mut c, &[&[1], b"def", &eof, b"\x011", &eof]),
            [Head, Definition, Definition, FirstRow, End]
        );
    }

    #[test]
    fn several_results_belong_to_one_request_and_several_requests_are_answered_in_order() {
        let mut c = logged_in(DEPRECATE_EOF);
        c.frame(From::Client, &frame(0, b"\x03a; b"));
        c.frame(From::Client, &frame(0, b"\x03second"));
        assert_eq!((c.request(), c.last_request()), (&b"\x03a; b"[..], &b"\x03second"[..]));
        assert_eq!(server(&mut c, &[&[0, 0, 0, 0x0a, 0, 0, 0]]), [Frame::Ok]);
        assert_eq!(c.request(), b"\x03a; b");
        assert_eq!(server(&mut c, &[&[0, 0xfc, 1, 2, 0, 0x02, 0, 0, 0]]), [Frame::Ok]);
        assert_eq!(c.request(), b"\x03second");
        assert_eq!(server(&mut c, &[b"\xff\x01\x02no"]), [Frame::Err]);
        assert_eq!(server(&mut c, &[b"\xff\x01\x02bye"]), [Frame::Err], "said unasked");
    }

    #[test]
    fn a_prepared_statement_s_definitions_are_counted() {
        let mut c = logged_in(DEPRECATE_EOF);
        c.frame(From::Client, &frame(0, b"\x16SELECT ?"));
        let ok = [0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0];
        assert_eq!(server(&mut c, &[&ok, b"def", b"def"]), [Frame::Ok, Frame::Definition, Frame::Definition]);
        c.frame(From::Client, &frame(0, b"\x19\x01\0\0\0"));
        c.frame(From::Client, &frame(0, b"\x0e"));
        assert_eq!(server(&mut c, &[&[0, 0, 0, 2, 0, 0, 0]]), [Frame::Ok]);
        assert_eq!(c.frame(From::Client, &frame(0, b"\x11app")), Frame::Request);
        assert_eq!(server(&mut c, &[&[0xfe], &[0, 0, 0, 2, 0]]), [Frame::LoginMore, Frame::LoginOk]);
    }

    #[test]
    fn tls_is_passed_through_unread() {
        let mut c = Conversation::default();
        c.frame(From::Server, &frame(0, b"\x0agreeting"));
        let mut request = (SSL | 1).to_le_bytes().to_vec();
        request.resize(32, 0);
        assert_eq!(c.frame(From::Client, &frame(1, &request)), Frame::Unknown);
        assert_eq!(c.frame_len(b"\x16\x03\x01"), Some(3));
    }

    #[test]
    fn a_frame_counts_when_all_of_it_is_there() {
        let c = Conversation::default();
        assert_eq!(c.frame_len(b"\x02\0\0\0a"), None);
        assert_eq!(c.frame_len(b"\x02\0\0\0abc"), Some(6));
        assert_eq!(c.frame_len(b"\x02\0"), None);
    }
}
