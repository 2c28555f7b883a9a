//! Runs every fuzz target over its corpus, and over changed copies of it, with the stable compiler: always the same inputs.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking.

#[path = "fuzz/targets.rs"]
mod targets;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Changed inputs for each target, unless the time runs out first.
const MUTATIONS_MAX: usize = 400_000;
/// Time for each target.
const TARGET_SECONDS_MAX: u64 = 4;
/// Longest input.
const INPUT_BYTES_MAX: usize = 4096;

/// xorshift64*: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n.max(1)
    }
}

/// The corpus of a target in the order of its file names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// One to four small changes to a seed.
fn mutate(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    const EDGES: [u8; 10] = [0x00, 0x01, 0x7F, 0x80, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF];
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(6) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = EDGES[random.below(EDGES.len())],
            2 => input.truncate(at),
            3 => input.insert(at, random.next() as u8),
            4 if at < input.len() => drop(input.remove(at)),
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                input.splice(at.., other[from..].iter().copied());
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn run(target: &targets::Target, input: &[u8]) {
    let (name, function) = target;
    if std::panic::catch_unwind(|| function(input)).is_err() {
        let hex: String = input.iter().map(|b| format!("{b:02x}")).collect();
        panic!("target {name} fails with the input {hex}");
    }
}

#[test]
fn every_target_stands_its_corpus_and_changes_of_it() {
    for target in targets::ALL {
        let mut seeds = corpus(target.0);
        assert!(!seeds.is_empty(), "target {} has no corpus", target.0);
        seeds.push(Vec::new());
        seeds.iter().for_each(|seed| run(target, seed));
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let end = Instant::now() + Duration::from_secs(TARGET_SECONDS_MAX);
        for _ in 0..MUTATIONS_MAX {
            run(target, &mutate(&mut random, &seeds));
            if Instant::now() > end {
                break;
            }
        }
    }
}

#[test]
fn recorded_answers_of_real_servers_end_where_they_end() {
    let answers = corpus("replies");
    assert!(answers.len() > 50);
    for answer in answers {
        let hex: String = answer.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(targets::follow_reply(&answer), (true, 0), "{hex}");
    }
}
