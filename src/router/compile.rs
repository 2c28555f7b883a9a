//! From a rule file to one lookup a statement: for each kind of statement the first rule that matches it, found once.

use std::borrow::Cow;
use std::sync::Arc;

use super::reason::{RuleIndex, Why};
use super::rules::{
    Destination, NAME_BYTES_MAX, RULES_MAX, Rule, RuleFault, RuleFile, StatementKind, WHY_BYTES_MAX, line_of, parse,
};

/// Where statements of one kind go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Where to.
    pub to: Destination,
    /// By which rule; `None`: no rule matches, and the writer serves what none matches.
    pub rule: Option<RuleIndex>,
}

/// The name and the reason of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    name: String,
    why: String,
    to: Destination,
}

/// Compiled rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet {
    targets: [Target; StatementKind::ALL.len()],
    told: Vec<Told>,
}

impl RuleSet {
    /// No rules: everything goes to the writer.
    pub fn none() -> Arc<RuleSet> {
        Arc::default()
    }

    /// Reads and compiles rule files. All faults at once, as far as the files can be read at all.
    pub fn compile<T: AsRef<str>>(texts: &[T]) -> Result<RuleSet, Vec<RuleFault>> {
        let (mut files, mut faults) = (Vec::with_capacity(texts.len()), Vec::new());
        for (n, text) in texts.iter().map(AsRef::as_ref).enumerate() {
            match parse(n, text) {
                Ok(file) => files.push(Source { n, text, file }),
                Err(fault) => faults.push(fault),
            }
        }
        faults.extend(faults_of(&files));
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut set = RuleSet::default();
        for (rule, index) in files.iter().flat_map(|source| &source.file.rules).map(|r| r.get_ref()).zip(0u16..) {
            for kind in rule.matches.statement.get_ref() {
                if let Some(target) = set.targets.get_mut(kind.index()).filter(|target| target.rule.is_none()) {
                    *target = Target { to: *rule.to.get_ref(), rule: Some(RuleIndex(index)) };
                }
            }
            set.told.push(Told {
                name: rule.name.get_ref().clone(),
                why: rule.why.get_ref().clone(),
                to: *rule.to.get_ref(),
            });
        }
        Ok(set)
    }

    /// Where a statement of this kind goes.
    pub fn target(&self, kind: StatementKind) -> Target {
        self.targets.get(kind.index()).copied().unwrap_or_default()
    }

    /// Whether anything goes anywhere but to the writer.
    pub fn uses_readers(&self) -> bool {
        self.targets.iter().any(|target| target.to == Destination::Readers)
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.told.len()
    }

    /// The names of the rules in their order, and where they send statements.
    pub fn names(&self) -> impl Iterator<Item = (&str, Destination)> {
        self.told.iter().map(|told| (told.name.as_str(), told.to))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// The reason of a decision, for people. A rule of another set has no name here.
    pub fn explain(&self, why: Why) -> Cow<'static, str> {
        let told = |rule: RuleIndex| self.told.get(rule.index());
        match why {
            Why::Word(word) => Cow::Borrowed(word),
            Why::Rule(rule) => {
                told(rule).map_or(Cow::Borrowed("a rule"), |t| Cow::Owned(format!("rule '{}': {}", t.name, t.why)))
            }
            Why::NotByRule(rule, against) => {
                let name = told(rule).map_or("?", |t| t.name.as_str());
                Cow::Owned(format!("not by rule '{name}': {}", against.text()))
            }
        }
    }
}

/// One of the files.
struct Source<'t> {
    n: usize,
    text: &'t str,
    file: RuleFile,
}

fn faults_of(files: &[Source<'_>]) -> Vec<RuleFault> {
    let mut faults = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    let mut taken: [Option<&str>; StatementKind::ALL.len()] = [None; StatementKind::ALL.len()];
    let all = || files.iter().flat_map(|source| source.file.rules.iter().map(move |rule| (source, rule)));
    if let Some((source, rule)) = all().nth(RULES_MAX) {
        faults.push(RuleFault {
            file: source.n,
            line: line_of(source.text, rule.span().start),
            rule: Some(rule.get_ref().name.get_ref().clone()),
            wrong: format!("there are more than {RULES_MAX} rules"),
            remedy: "join some of them".to_owned(),
        });
        return faults;
    }
    for (source, rule) in all().map(|(source, rule)| (source, rule.get_ref())) {
        let name = rule.name.get_ref().as_str();
        let mut fault = |offset: usize, wrong: String, remedy: &str| {
            let (line, rule) = (line_of(source.text, offset), Some(name.to_owned()));
            faults.push(RuleFault { file: source.n, line, rule, wrong, remedy: remedy.to_owned() });
        };
        if let Some(wrong) = wrong_with_name(name) {
            fault(rule.name.span().start, wrong, "write a short word of a-z, 0-9, - and _");
        }
        if names.contains(&name) {
            fault(rule.name.span().start, "another rule has this name".to_owned(), "give each rule a name of its own");
        }
        names.push(name);
        let why = rule.why.get_ref();
        if why.trim().is_empty() || why.len() > WHY_BYTES_MAX || why.chars().any(char::is_control) {
            let wrong = format!("`why` is empty, longer than {WHY_BYTES_MAX} bytes, or holds control characters");
            fault(rule.why.span().start, wrong, "write one sentence for people");
        }
        check_match(rule, &mut taken, name, &mut fault);
    }
    faults
}

fn check_match<'f>(
    rule: &'f Rule,
    taken: &mut [Option<&'f str>; StatementKind::ALL.len()],
    name: &'f str,
    fault: &mut impl FnMut(usize, String, &str),
) {
    let kinds = rule.matches.statement.get_ref();
    let at = rule.matches.statement.span().start;
    if kinds.is_empty() {
        fault(at, "it matches no statement".to_owned(), "name at least one kind of statement, or remove the rule");
        return;
    }
    if *rule.to.get_ref() == Destination::Readers {
        for kind in kinds.iter().filter(|kind| !kind.may_be_read_elsewhere()) {
            fault(
                rule.to.span().start,
                format!(
                    "statements of the kind `{}` are not certainly reads, and only reads may go to readers",
                    kind.label()
                ),
                "send them to the writer, or remove the kind from this rule",
            );
        }
    }
    let earlier = kinds.iter().map(|kind| taken.get(kind.index()).copied().flatten()).collect::<Option<Vec<&str>>>();
    if let Some(earlier) = earlier {
        let wrong = format!("it never decides: '{}' stands before it and matches the same", earlier.join("', '"));
        fault(at, wrong, "put it first, or remove it");
    }
    for kind in kinds {
        if let Some(slot) = taken.get_mut(kind.index())
            && slot.is_none()
        {
            *slot = Some(name);
        }
    }
}

fn wrong_with_name(name: &str) -> Option<String> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if name.is_empty() {
        Some("the name is empty".to_owned())
    } else if name.len() > NAME_BYTES_MAX {
        Some(format!("the name is longer than {NAME_BYTES_MAX} bytes"))
    } else if !name.bytes().all(good) {
        Some("the name holds something else than a-z, 0-9, - and _".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::Against;

    fn rule(name: &str, kinds: &str, to: &str) -> String {
        format!("[[rule]]\nname = \"{name}\"\nwhy = \"w\"\nmatch = {{ statement = [{kinds}] }}\nto = \"{to}\"\n\n")
    }

    fn faults(text: &str) -> Vec<(usize, Option<String>, String)> {
        RuleSet::compile(&[text]).unwrap_err().into_iter().map(|f| (f.line, f.rule, f.wrong)).collect()
    }

    #[test]
    fn the_first_match_decides_and_the_rest_goes_to_the_writer() {
        let text = rule("one", "\"read\", \"write\"", "writer")
            + &rule("two", "\"read\", \"read_only_transaction\"", "readers");
        let set = RuleSet::compile(&[text]).unwrap();
        let target = |kind| set.target(kind);
        assert_eq!(target(StatementKind::Read), Target { to: Destination::Writer, rule: Some(RuleIndex(0)) });
        assert_eq!(
            target(StatementKind::ReadOnlyTransaction),
            Target { to: Destination::Readers, rule: Some(RuleIndex(1)) }
        );
        assert_eq!(target(StatementKind::Other), Target::default());
        assert_eq!(set.explain(Why::Rule(RuleIndex(1))), "rule 'two': w");
        assert_eq!(
            set.explain(Why::NotByRule(RuleIndex(0), Against::Pinned)),
            "not by rule 'one': the session is pinned"
        );
        assert_eq!((set.len(), set.uses_readers()), (2, true));
        assert!(!RuleSet::none().uses_readers());
    }

    #[test]
    fn only_reads_may_go_to_readers() {
        for kind in StatementKind::ALL {
            let compiled = RuleSet::compile(&[rule("r", &format!("\"{}\"", kind.label()), "readers")]);
            assert_eq!(compiled.is_ok(), kind.may_be_read_elsewhere(), "{kind:?}");
        }
        let found = faults(&rule("r", "\"read\", \"other\"", "readers"));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0, found[0].1.as_deref()), (5, Some("r")));
        assert!(found[0].2.contains("`other`"), "{}", found[0].2);
    }

    #[test]
    fn every_fault_names_its_rule_and_line() {
        let text = rule("Bad Name", "\"read\"", "readers")
            + &rule("b", "\"read\"", "writer")
            + &rule("b", "", "writer")
            + "[[rule]]\nname = \"d\"\nwhy = \" \"\nmatch.statement = [\"write\"]\nto = \"writer\"\n";
        let found = faults(&text);
        let at: Vec<(usize, &str)> = found.iter().map(|f| (f.0, f.1.as_deref().unwrap())).collect();
        assert_eq!(at, [(2, "Bad Name"), (10, "b"), (14, "b"), (16, "b"), (21, "d")], "{found:#?}");
        assert!(found[1].2.contains("never decides"), "{}", found[1].2);
    }

    #[test]
    fn files_follow_each_other_and_a_fault_says_in_which_it_is() {
        let (one, two) = (rule("one", "\"read\"", "writer"), rule("two", "\"read\", \"write\"", "writer"));
        let set = RuleSet::compile(&[&one, &two]).unwrap();
        assert_eq!(set.target(StatementKind::Read).rule, Some(RuleIndex(0)));
        assert_eq!(set.target(StatementKind::Write).rule, Some(RuleIndex(1)));
        let found = RuleSet::compile(&[&two, &one, &"x".to_owned()]).unwrap_err();
        let at: Vec<(usize, usize)> = found.iter().map(|f| (f.file, f.line)).collect();
        assert_eq!(at, [(2, 1), (1, 4)], "{found:#?}");
        assert_eq!(RuleSet::compile::<&str>(&[]).unwrap(), RuleSet::default());
    }

    #[test]
    fn there_is_a_limit() {
        let many: String = (0..=RULES_MAX).map(|n| rule(&format!("r{n}"), "\"other\"", "writer")).collect();
        assert_eq!(faults(&many)[0].0, RULES_MAX * 6 + 1);
    }

    #[test]
    fn the_shipped_file_is_good() {
        let set = RuleSet::compile(&[include_str!("../../router-rules/read-scaling.toml")]).unwrap();
        for kind in StatementKind::ALL {
            assert_eq!(set.target(kind).to == Destination::Readers, kind.may_be_read_elsewhere(), "{kind:?}");
        }
    }
}
