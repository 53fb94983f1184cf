//! The report that CI systems read: JUnit's form.
//!
//! ```text
//! <testsuites name tests failures skipped time>                 one file
//!  <testsuite name tests failures skipped time>                 cases that ran together
//!   <testcase classname name [time]>                            time only where it is known
//!    <failure message="first line">everything</failure>  |  <skipped message="why"/>
//! ```

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::outcome::{Case, Count, Outcome};

/// Cases that ran together: a test binary, the demo, the scenarios.
#[derive(Clone, Debug, Default)]
pub struct Suite {
    /// Its name.
    pub name: String,
    /// Its cases.
    pub cases: Vec<Case>,
    /// How long all of them took: less than the sum where they ran beside each other. `None`: their sum.
    pub took: Option<Duration>,
}

impl Suite {
    /// Cases that know how long they took.
    pub fn of(name: &str, cases: Vec<Case>) -> Suite {
        Suite { name: name.to_owned(), cases, took: None }
    }

    fn took(&self) -> Duration {
        self.took.unwrap_or_else(|| self.cases.iter().filter_map(|c| c.took).sum())
    }
}

/// All of them counted.
pub fn count(suites: &[Suite]) -> Count {
    let mut all = Count::default();
    suites.iter().for_each(|suite| all += Count::of(&suite.cases));
    all
}

/// Writes a report of `suites`.
pub fn write(path: &Path, name: &str, suites: &[Suite]) -> Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    std::fs::write(path, render(name, suites)).with_context(|| format!("writing {}", path.display()))
}

fn render(name: &str, suites: &[Suite]) -> String {
    let took = suites.iter().map(Suite::took).sum();
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    text += &format!("<testsuites{}>\n", totals(name, count(suites), took));
    for suite in suites {
        text += &format!(" <testsuite{}>\n", totals(&suite.name, Count::of(&suite.cases), suite.took()));
        suite.cases.iter().for_each(|case| text += &element(case));
        text += " </testsuite>\n";
    }
    text + "</testsuites>\n"
}

fn totals(name: &str, count: Count, took: Duration) -> String {
    let Count { passed, failed, skipped } = count;
    format!(
        " name=\"{}\" tests=\"{}\" failures=\"{failed}\" skipped=\"{skipped}\" time=\"{:.2}\"",
        escape(name),
        passed + failed + skipped,
        took.as_secs_f64()
    )
}

fn element(case: &Case) -> String {
    let inner = match &case.outcome {
        Outcome::Passed => String::new(),
        Outcome::Failed(why) => {
            let first = why.lines().next().unwrap_or_default();
            format!("<failure message=\"{}\">{}</failure>", escape(first), escape(why))
        }
        Outcome::Skipped(why) => format!("<skipped message=\"{}\"/>", escape(why)),
    };
    // No time rather than one that nobody has measured.
    let time = case.took.map(|t| format!(" time=\"{:.1}\"", t.as_secs_f64())).unwrap_or_default();
    let (class, name) = (escape(&case.class), escape(&case.name));
    format!("  <testcase classname=\"{class}\" name=\"{name}\"{time}>{inner}</testcase>\n")
}

fn escape(text: &str) -> String {
    // XML 1.0 has no form at all for most control characters; consoles are full of them.
    let forbidden = |c: char| c.is_control() && c != '\n' && c != '\t';
    text.replace(forbidden, " ").replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, outcome: Outcome, took: Option<Duration>) -> Case {
        Case { class: "scenarios".into(), name: name.into(), outcome, took }
    }

    #[test]
    fn text_from_a_console_is_escaped() {
        let took = Some(Duration::from_millis(1500));
        let cases = vec![
            case("a", Outcome::Passed, took),
            case("b", Outcome::Failed("it said \"<x>\"\n\x1b[0m".into()), took),
            case("c", Outcome::Skipped("a & b".into()), took),
        ];
        let text = render("scenarios", &[Suite::of("scenarios", cases)]);
        assert!(text.contains("tests=\"3\" failures=\"1\" skipped=\"1\" time=\"4.50\""), "{text}");
        assert!(text.contains("<failure message=\"it said &quot;&lt;x&gt;&quot;\">"), "{text}");
        assert!(text.contains("<skipped message=\"a &amp; b\"/>") && !text.contains('\x1b'), "{text}");
    }

    #[test]
    fn a_suite_has_the_time_that_was_measured_and_the_report_their_sum() {
        let mut one = Suite::of("one", vec![case("a", Outcome::Passed, None), case("b", Outcome::Passed, None)]);
        one.took = Some(Duration::from_millis(2250));
        let two = Suite::of("two", vec![case("c", Outcome::Passed, Some(Duration::from_secs(3)))]);
        let text = render("all", &[one, two]);
        assert!(
            text.contains("<testsuites name=\"all\" tests=\"3\" failures=\"0\" skipped=\"0\" time=\"5.25\">"),
            "{text}"
        );
        assert!(
            text.contains("<testsuite name=\"one\" tests=\"2\" failures=\"0\" skipped=\"0\" time=\"2.25\">"),
            "{text}"
        );
        assert!(text.contains("name=\"a\">") && text.contains("name=\"c\" time=\"3.0\">"), "{text}");
    }
}
