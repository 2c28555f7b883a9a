//! The proxy against a server that only knows what the test tells it to say.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::*;

fn frame(seq: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_le_bytes()[..3].to_vec();
    out.push(seq);
    out.extend_from_slice(payload);
    out
}

const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];

/// Greets, takes a login, and then answers each request by an OK; says how many it got.
fn server() -> (String, std::sync::mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, tell) = (stream.unwrap(), tell.clone());
            std::thread::spawn(move || {
                let _ = stream.write_all(&frame(0, b"\x0agreeting"));
                let mut logged_in = false;
                while let Some(request) = read_frame(&mut stream) {
                    let seq = if logged_in { 1 } else { 2 };
                    if logged_in {
                        let _ = tell.send(request);
                    }
                    logged_in = true;
                    let _ = stream.write_all(&frame(seq, OK));
                }
            });
        }
    });
    (address, told)
}

fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).ok()?;
    let mut payload = vec![0; usize::from(header[0]) | usize::from(header[1]) << 8];
    stream.read_exact(&mut payload).ok()?;
    Some(payload)
}

fn login(faults: &Faults) -> TcpStream {
    let mut stream = TcpStream::connect(faults.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(read_frame(&mut stream).unwrap(), b"\x0agreeting");
    let mut response = (1_u32 << 24).to_le_bytes().to_vec();
    response.resize(32, 0);
    response.extend_from_slice(b"app\0");
    stream.write_all(&frame(1, &response)).unwrap();
    assert_eq!(read_frame(&mut stream).unwrap(), OK);
    stream
}

fn ask(stream: &mut TcpStream, sql: &str) -> std::io::Result<Vec<u8>> {
    stream.write_all(&frame(0, format!("\x03{sql}").as_bytes()))?;
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    let mut payload = vec![0; usize::from(header[0])];
    stream.read_exact(&mut payload)?;
    Ok(payload)
}

fn next(told: &std::sync::mpsc::Receiver<Vec<u8>>) -> Vec<u8> {
    told.recv_timeout(Duration::from_secs(5)).unwrap()
}

#[test]
fn a_cut_before_a_request_keeps_it_from_the_server_and_one_after_does_not() {
    let (address, told) = server();
    let faults = Faults::start(&address).unwrap();
    let mut a = login(&faults);
    assert_eq!(ask(&mut a, "first").unwrap(), OK);
    assert_eq!(next(&told), b"\x03first");
    faults.arm(Fault::before(Point::Request, "second"), Act::Reset);
    assert_eq!(ask(&mut a, "other").unwrap(), OK);
    assert_eq!(next(&told), b"\x03other");
    assert_eq!(ask(&mut a, "second").unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert!(told.try_recv().is_err());
    let mut b = login(&faults);
    faults.arm(Fault::after(Point::Request, "third").nth(2), Act::Close);
    assert_eq!(ask(&mut b, "third").unwrap(), OK);
    assert!(ask(&mut b, "third").is_err());
    assert_eq!((next(&told), next(&told)), (b"\x03third".to_vec(), b"\x03third".to_vec()));
    assert_eq!((faults.fired(), faults.requests("third"), faults.requests("second")), (2, 2, 0));
}

#[test]
fn an_answer_is_cut_at_a_packet_or_at_a_byte() {
    let (address, _told) = server();
    let faults = Faults::start(&address).unwrap();
    let mut a = login(&faults);
    faults.arm(Fault::before(Point::Ok, "one"), Act::Close);
    let error = ask(&mut a, "one").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    let mut b = login(&faults);
    faults.arm(Fault::after(Point::AnswerBytes(6), "two"), Act::Close);
    b.write_all(&frame(0, b"\x03two")).unwrap();
    let mut got = Vec::new();
    b.read_to_end(&mut got).unwrap();
    assert_eq!(got, [7, 0, 0, 1, 0, 0]);
    let mut c = login(&faults);
    faults.arm(Fault::after(Point::Answer, "three"), Act::Reset);
    assert_eq!(ask(&mut c, "three").unwrap(), OK);
    assert!(ask(&mut c, "four").is_err());
    faults.arm(Fault::before(Point::LoginOk, "app\0"), Act::Close);
    let mut d = TcpStream::connect(faults.address()).unwrap();
    read_frame(&mut d).unwrap();
    let mut response = vec![0; 32];
    response.extend_from_slice(b"app\0");
    d.write_all(&frame(1, &response)).unwrap();
    assert!(read_frame(&mut d).is_none());
    assert_eq!(faults.fired(), 4);
}

#[test]
fn a_dead_node_refuses_and_comes_back_and_a_silent_one_says_nothing() {
    let (address, _told) = server();
    let faults = Faults::start(&address).unwrap();
    let (mut a, mut b) = (login(&faults), login(&faults));
    faults.arm(Fault::after(Point::Request, "die"), Act::Die);
    assert!(ask(&mut a, "die").is_err());
    assert!(ask(&mut b, "x").is_err(), "the others die with it");
    wait_for("refusal", Duration::from_secs(5), || TcpStream::connect(faults.address()).is_err().then_some(()))
        .unwrap();
    faults.revive().unwrap();
    let mut c = login(&faults);
    for act in [Act::Silence, Act::HalfOpen] {
        faults.arm(Fault::before(Point::Answer, "hush"), act);
        let mut silent = login(&faults);
        silent.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let error = ask(&mut silent, "hush").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "open and silent");
    }
    faults.mute();
    c.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert_eq!(ask(&mut c, "x").unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    faults.revive().unwrap();
    let mut d = login(&faults);
    assert_eq!(ask(&mut d, "x").unwrap(), OK);
    faults.cut_all(false);
    assert!(ask(&mut d, "x").is_err());
    faults.refuse().unwrap();
    assert!(TcpStream::connect(faults.address()).is_err());
}
