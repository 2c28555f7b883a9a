//! Where the view goes: a terminal, redrawn in place, or plain lines.

use std::io::{IsTerminal, Write, stdout};

use super::board::Event;
use super::view::{Frame, Paint, event_line};

/// The alternate screen, no cursor, no line wrap.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
/// All of it undone.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Standard output.
#[derive(Debug)]
pub struct Screen {
    /// It is a terminal that is redrawn, and it was not given back yet.
    redrawn: bool,
    /// Events that were printed already.
    printed: usize,
}

impl Screen {
    /// A terminal if standard output is one and `plain` is not asked for.
    pub fn open(plain: bool) -> Screen {
        let redrawn = !plain && stdout().is_terminal();
        if redrawn {
            put(ENTER);
        }
        Screen { redrawn, printed: 0 }
    }

    /// Shows a frame.
    pub fn show(&mut self, frame: &Frame) {
        if self.redrawn {
            let mut text = String::new();
            for (row, line) in frame.lines(Paint { colours: true }).iter().enumerate() {
                // Each line goes to its own row: a terminal with fewer rows does not scroll.
                text += &format!("\x1b[{};1H{line}\x1b[K", row + 1);
            }
            put(&(text + "\x1b[J"));
            return;
        }
        let mut text = String::new();
        for event in frame.events.iter().skip(self.printed) {
            text += &format!("{}\n", event_line(event, Paint { colours: false }));
        }
        self.printed = frame.events.len();
        put(&format!("{text}{}\n", frame.plain()));
    }

    /// Gives the terminal back, and leaves there what happened: the view is gone.
    pub fn close(&mut self, events: &[Event]) {
        if std::mem::take(&mut self.redrawn) {
            let lines = events.iter().map(|event| event_line(event, Paint { colours: true }) + "\n");
            put(&format!("{LEAVE}{}\n", lines.collect::<String>()));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close(&[]);
    }
}

/// Gives the terminal back although nobody drops the screen: the process is about to end.
pub fn restore() {
    if stdout().is_terminal() {
        put(LEAVE);
    }
}

/// A reader that has gone away is no reason to stop.
fn put(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
