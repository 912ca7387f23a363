//! Regular expressions, as far as routes have them: whether one fits the whole of a text, in time that grows with its length
//! and never explodes. A tenth of the code of a library that also finds and captures.
//!
//! Literals, `.`, classes with ranges, `\d \w \s` and their opposites, groups, `|`, `* + ? {m,n}`, `^ $`, and `(?i)` at the
//! beginning. ASCII classes; other characters stand for themselves.

/// What a program may consist of: `x{1000}` is a thousand steps.
const MAX_STEPS: usize = 2000;
const MAX_DEPTH: usize = 50;

/// Characters from the first to the last of each.
type Ranges = Vec<(char, char)>;

/// An expression, ready to be compared.
#[derive(Debug)]
pub(crate) struct Regex {
    steps: Vec<Step>,
    text: String,
    any_case: bool,
}

#[derive(Clone, Debug)]
enum Step {
    /// One character within the ranges, or outside of them.
    One(Ranges, bool),
    /// Go on at both.
    Split(usize, usize),
    Jump(usize),
    Begin,
    End,
    Fits,
}

/// An expression as it is written.
#[derive(Clone)]
enum Node {
    Empty,
    One(Ranges, bool),
    Begin,
    End,
    Then(Vec<Node>),
    Or(Vec<Node>),
    /// At least, and at most.
    Repeat(Box<Node>, usize, Option<usize>),
}

impl Regex {
    pub(crate) fn new(text: &str) -> Result<Self, &'static str> {
        let (any_case, rest) = text.strip_prefix("(?i)").map_or((false, text), |rest| (true, rest));
        let mut reader = Reader { rest: rest.chars().collect(), at: 0, any_case };
        let node = reader.either(0)?;
        if reader.peek().is_some() {
            return Err("has a closing bracket too many");
        }
        let mut steps = Vec::new();
        emit(&node, &mut steps)?;
        steps.push(Step::Fits);
        Ok(Regex { steps, text: text.to_owned(), any_case })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it fits the whole.
    pub(crate) fn is_match(&self, text: &str) -> bool {
        let (mut now, mut next) = (vec![false; self.steps.len()], vec![false; self.steps.len()]);
        let end = text.chars().count();
        let mut stack = vec![0];
        self.follow(&mut stack, &mut now, 0, end);
        for (i, c) in text.chars().enumerate() {
            let c = if self.any_case { c.to_ascii_lowercase() } else { c };
            next.fill(false);
            for (at, step) in self.steps.iter().enumerate().filter(|(at, _)| now.get(*at) == Some(&true)) {
                let Step::One(ranges, outside) = step else { continue };
                if ranges.iter().any(|(first, last)| (*first..=*last).contains(&c)) != *outside {
                    stack.push(at + 1);
                    self.follow(&mut stack, &mut next, i + 1, end);
                }
            }
            std::mem::swap(&mut now, &mut next);
        }
        now.last().is_some_and(|fits| *fits)
    }

    /// Marks every step that is reached without a character.
    fn follow(&self, stack: &mut Vec<usize>, marks: &mut [bool], place: usize, end: usize) {
        while let Some(at) = stack.pop() {
            let (Some(step), Some(mark)) = (self.steps.get(at), marks.get_mut(at)) else { continue };
            if std::mem::replace(mark, true) {
                continue;
            }
            match step {
                Step::Jump(to) => stack.push(*to),
                Step::Split(one, other) => stack.extend([*one, *other]),
                Step::Begin if place == 0 => stack.push(at + 1),
                Step::End if place == end => stack.push(at + 1),
                _ => {}
            }
        }
    }
}

struct Reader {
    rest: Vec<char>,
    at: usize,
    any_case: bool,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    fn take_if(&mut self, wanted: char) -> bool {
        let there = self.peek() == Some(wanted);
        self.at += usize::from(there);
        there
    }

    fn either(&mut self, depth: usize) -> Result<Node, &'static str> {
        if depth > MAX_DEPTH {
            return Err("is nested too deeply");
        }
        let mut ways = vec![self.sequence(depth)?];
        while self.take_if('|') {
            ways.push(self.sequence(depth)?);
        }
        Ok(if ways.len() == 1 { ways.remove(0) } else { Node::Or(ways) })
    }

    fn sequence(&mut self, depth: usize) -> Result<Node, &'static str> {
        let mut parts = Vec::new();
        while let Some(c) = self.peek().filter(|c| !matches!(c, '|' | ')')) {
            self.at += 1;
            let part = match c {
                '^' => Node::Begin,
                '$' => Node::End,
                '.' => Node::One(vec![('\n', '\n')], true),
                '[' => self.class()?,
                '\\' => {
                    let (ranges, outside) = self.escape()?;
                    Node::One(ranges, outside)
                }
                '(' => {
                    if self.take_if('?') && !self.take_if(':') {
                        return Err("has a kind of group that is not supported");
                    }
                    let inner = self.either(depth + 1)?;
                    if !self.take_if(')') {
                        return Err("has a group without an end");
                    }
                    inner
                }
                '*' | '+' | '?' => return Err("repeats nothing"),
                '{' => return Err("repeats nothing"),
                c => {
                    let c = if self.any_case { c.to_ascii_lowercase() } else { c };
                    Node::One(vec![(c, c)], false)
                }
            };
            let part = self.repeated(part)?;
            if !matches!(part, Node::Empty) {
                parts.push(part);
            }
        }
        Ok(match parts.len() {
            0 => Node::Empty,
            1 => parts.remove(0),
            _ => Node::Then(parts),
        })
    }

    fn repeated(&mut self, mut part: Node) -> Result<Node, &'static str> {
        loop {
            let (least, most) = match self.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => {
                    self.at += 1;
                    let least = self.number()?;
                    let most = match self.take() {
                        Some('}') => Some(least),
                        Some(',') if self.take_if('}') => None,
                        Some(',') => {
                            let most = self.number()?;
                            if !self.take_if('}') || most < least {
                                return Err("has a number of repetitions that cannot be");
                            }
                            Some(most)
                        }
                        _ => return Err("has a number of repetitions that cannot be"),
                    };
                    self.at -= 1;
                    (least, most)
                }
                _ => return Ok(part),
            };
            self.at += 1;
            // As few or as many as there may be: all the same where the whole must fit.
            self.take_if('?');
            // Nothing, however often, is nothing.
            if !matches!(part, Node::Empty) {
                part = if most == Some(0) { Node::Empty } else { Node::Repeat(Box::new(part), least, most) };
            }
        }
    }

    fn number(&mut self) -> Result<usize, &'static str> {
        let mut number = None;
        while let Some(digit) = self.peek().and_then(|c| c.to_digit(10)) {
            self.at += 1;
            number = Some(number.unwrap_or(0usize).saturating_mul(10).saturating_add(digit as usize));
        }
        number.filter(|n| *n <= MAX_STEPS).ok_or("has a number of repetitions that cannot be")
    }

    /// Behind the backslash.
    fn escape(&mut self) -> Result<(Ranges, bool), &'static str> {
        let c = self.take().ok_or("ends within an escape")?;
        let word = || vec![('a', 'z'), ('A', 'Z'), ('0', '9'), ('_', '_')];
        let space = || vec![('\t', '\r'), (' ', ' ')];
        let one = |c| (vec![(c, c)], false);
        Ok(match c {
            'd' | 'D' => (vec![('0', '9')], c == 'D'),
            'w' | 'W' => (word(), c == 'W'),
            's' | 'S' => (space(), c == 'S'),
            'n' => one('\n'),
            't' => one('\t'),
            'r' => one('\r'),
            c if c.is_ascii_alphanumeric() => return Err("has an escape that is not supported"),
            c => one(c),
        })
    }

    /// Behind the opening bracket.
    fn class(&mut self) -> Result<Node, &'static str> {
        let outside = self.take_if('^');
        let mut ranges = Vec::new();
        let mut first = true;
        loop {
            let c = self.take().ok_or("has a class without an end")?;
            if c == ']' && !first {
                break;
            }
            first = false;
            let low = match c {
                '[' => return Err("has a class within a class"),
                '\\' => match self.escape()? {
                    (one, false) if one.len() == 1 && one.first().is_some_and(|(a, b)| a == b) => {
                        one.first().map_or(c, |r| r.0)
                    }
                    (_, true) => return Err("has an opposite within a class"),
                    (more, false) => {
                        ranges.extend(more);
                        continue;
                    }
                },
                c => c,
            };
            let range = self.peek() == Some('-') && self.rest.get(self.at + 1).is_some_and(|c| *c != ']');
            if !range {
                ranges.push((low, low));
                continue;
            }
            self.at += 1;
            let high = match self.take().ok_or("has a class without an end")? {
                '\\' => match self.escape()?.0[..] {
                    [(c, d)] if c == d => c,
                    _ => return Err("has a range that cannot be"),
                },
                c => c,
            };
            if high < low {
                return Err("has a range that cannot be");
            }
            ranges.push((low, high));
        }
        if self.any_case {
            let lower = ranges.iter().filter_map(|(low, high)| {
                let (low, high) = ((*low).max('A'), (*high).min('Z'));
                (low <= high).then(|| (low.to_ascii_lowercase(), high.to_ascii_lowercase()))
            });
            let lower: Vec<_> = lower.collect();
            ranges.extend(lower);
        }
        Ok(Node::One(ranges, outside))
    }
}

fn emit(node: &Node, steps: &mut Vec<Step>) -> Result<(), &'static str> {
    if steps.len() > MAX_STEPS {
        return Err("is too long");
    }
    match node {
        Node::Empty => {}
        Node::One(ranges, outside) => steps.push(Step::One(ranges.clone(), *outside)),
        Node::Begin => steps.push(Step::Begin),
        Node::End => steps.push(Step::End),
        Node::Then(parts) => parts.iter().try_for_each(|part| emit(part, steps))?,
        Node::Or(ways) => {
            let mut jumps = Vec::new();
            for (i, way) in ways.iter().enumerate() {
                if i + 1 == ways.len() {
                    emit(way, steps)?;
                    break;
                }
                let split = steps.len();
                steps.push(Step::Split(split + 1, 0));
                emit(way, steps)?;
                jumps.push(steps.len());
                steps.push(Step::Jump(0));
                past(steps, split);
            }
            let end = steps.len();
            jumps.into_iter().for_each(|at| set(steps, at, Step::Jump(end)));
        }
        Node::Repeat(part, least, most) => {
            (0..*least).try_for_each(|_| emit(part, steps))?;
            match most {
                None => {
                    let split = steps.len();
                    steps.push(Step::Split(split + 1, 0));
                    emit(part, steps)?;
                    steps.push(Step::Jump(split));
                    past(steps, split);
                }
                Some(most) => {
                    for _ in *least..*most {
                        let split = steps.len();
                        steps.push(Step::Split(split + 1, 0));
                        emit(part, steps)?;
                        past(steps, split);
                    }
                }
            }
        }
    }
    if steps.len() > MAX_STEPS { Err("is too long") } else { Ok(()) }
}

/// Lets a split go on behind all that there is by now.
fn past(steps: &mut [Step], split: usize) {
    let end = steps.len();
    set(steps, split, Step::Split(split + 1, end));
}

fn set(steps: &mut [Step], at: usize, step: Step) {
    if let Some(place) = steps.get_mut(at) {
        *place = step;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_routes_have_is_understood() {
        for (expression, fits, not) in [
            ("/v[0-9]+", "/v12", "/v"),
            ("/v\\d{1,2}(/.*)?", "/v12/x", "/v123"),
            ("(?i)/Shop", "/sHOP", "/shops"),
            ("/(?:a|bc)*d", "/abcad", "/abd"),
            ("^/x$", "/x", "/xy"),
            ("[^/]+\\.js", "a-b.js", "a/b.js"),
            (".*\\.(png|jpg)", "/a/b.png", "/a/b.gif"),
            ("", "", "x"),
            ("a{3}", "aaa", "aa"),
            ("[a\\-z]]", "-]", "b]"),
        ] {
            let regex = Regex::new(expression).unwrap();
            assert!(regex.is_match(fits), "{expression}: {fits}");
            assert!(!regex.is_match(not), "{expression}: {not}");
        }
        for bad in
            ["(", ")", "*", "a{2", "a{3,2}", "[a", "[z-a]", "\\", "(?P<n>a)", "\\b", "(a{1000}){1000}", "a{99999}"]
        {
            assert!(Regex::new(bad).is_err(), "{bad}");
        }
        assert!(Regex::new(&"(".repeat(1000)).is_err());
    }

    #[test]
    fn nothing_takes_for_ever() {
        let regex = Regex::new("(a*)*(a*)*b").unwrap();
        assert!(!regex.is_match(&"a".repeat(5000)));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_library(
            expression in "((a|b|\\.|\\[ab\\]|\\[\\^a\\]|c)(\\*|\\+|\\?|\\{1,2\\})?|\\((a|b\\|c|ab)\\)(\\*|\\+)?|\\|){0,6}",
            texts in proptest::collection::vec("[abc]{0,6}", 8),
        ) {
            let theirs = regex_lite::Regex::new(&format!("^(?:{expression})$"));
            let ours = Regex::new(&expression);
            prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{}", expression);
            if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
                for text in texts {
                    prop_assert_eq!(ours.is_match(&text), theirs.is_match(&text), "{} on {}", expression, text);
                }
            }
        }

        #[test]
        fn never_panics_on_noise(expression in "[a-z0-9\\[\\](){}|*+?.^$\\\\,:-]{0,30}", text in ".{0,20}") {
            if let Ok(regex) = Regex::new(&expression) {
                regex.is_match(&text);
            }
        }
    }
}
