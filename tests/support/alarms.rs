//! CloudWatch's evaluation of an alarm of `template.yaml`, as AWS documents it:
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html> and
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html>.
//! It knows the metric math that the template uses, and stops the test at anything else.

use std::collections::BTreeMap;

use yaml_serde::Value;

use super::template::load;

/// Data points, the oldest first. None is a missing one.
pub type Series = Vec<Option<f64>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    InsufficientData,
    Alarm,
    Ok,
}

/// One value per minute for each metric, by its name.
#[derive(Debug, Default, Clone)]
pub struct Minutes(BTreeMap<&'static str, BTreeMap<usize, f64>>);

impl Minutes {
    pub fn with(mut self, metric: &'static str, minutes: impl IntoIterator<Item = usize>, value: f64) -> Self {
        self.0.entry(metric).or_default().extend(minutes.into_iter().map(|minute| (minute, value)));
        self
    }
}

/// An alarm of the template, with the defaults of the parameters that are not given.
#[derive(Debug)]
pub struct Alarm {
    pub expressions: BTreeMap<String, String>,
    pub metrics: BTreeMap<String, Value>,
    /// The id whose values the alarm compares.
    returned: String,
    period: usize,
    periods: usize,
    threshold: f64,
    comparison: String,
    missing: String,
}

impl Alarm {
    pub fn new(properties: &Value, given: &[(&str, f64)]) -> Self {
        let number = |value: &Value| -> f64 {
            let text = yaml_serde::to_string(value).unwrap();
            let Some(parameter) = text.trim().strip_prefix("!Ref ") else { return text.trim().parse().unwrap() };
            let value = given.iter().find(|(name, _)| *name == parameter).map(|(_, value)| *value);
            value.unwrap_or_else(|| load()["Parameters"][parameter]["Default"].as_f64().unwrap())
        };
        let mut alarm = Self {
            expressions: BTreeMap::new(),
            metrics: BTreeMap::new(),
            returned: "metric".to_owned(),
            period: 0,
            periods: number(&properties["EvaluationPeriods"]) as usize,
            threshold: number(&properties["Threshold"]),
            comparison: properties["ComparisonOperator"].as_str().unwrap().to_owned(),
            missing: properties["TreatMissingData"].as_str().unwrap().to_owned(),
        };
        let Some(queries) = properties["Metrics"].as_sequence() else {
            alarm.period = number(&properties["Period"]) as usize;
            alarm.metrics.insert("metric".to_owned(), properties.clone());
            return alarm;
        };
        let returned: Vec<_> = queries.iter().filter(|query| query["ReturnData"].as_bool() != Some(false)).collect();
        let [returned] = returned[..] else { panic!("an alarm watches one series") };
        alarm.returned = returned["Id"].as_str().unwrap().to_owned();
        for query in queries {
            let id = query["Id"].as_str().unwrap().to_owned();
            if let Some(expression) = query["Expression"].as_str() {
                alarm.expressions.insert(id, expression.to_owned());
                continue;
            }
            let stat = &query["MetricStat"];
            let period = number(&stat["Period"]) as usize;
            assert!([0, period].contains(&alarm.period), "each metric must have the same period");
            alarm.period = period;
            let mut metric = stat["Metric"].clone();
            metric["Statistic"] = stat["Stat"].clone();
            alarm.metrics.insert(id, metric);
        }
        alarm
    }

    /// Returns the state at the end of a minute, while CloudWatch lacks the data of the last `late`
    /// minutes. `retrieved` is the number of periods that CloudWatch retrieves beyond
    /// `EvaluationPeriods`. AWS does not document that number.
    pub fn state(&self, data: &Minutes, minute: usize, late: usize, retrieved: usize, before: State) -> State {
        let values = self.value(&self.returned, data, minute, late, self.periods + retrieved);
        let real: Vec<f64> = values.iter().flatten().copied().collect();
        if real.len() < self.periods {
            return match self.missing.as_str() {
                "ignore" => before,
                "notBreaching" => State::Ok,
                "breaching" => State::Alarm,
                _ => State::InsufficientData,
            };
        }
        let breaching = |value: &f64| match self.comparison.as_str() {
            "GreaterThanThreshold" => *value > self.threshold,
            "GreaterThanOrEqualToThreshold" => *value >= self.threshold,
            "LessThanThreshold" => *value < self.threshold,
            other => panic!("{other}"),
        };
        if real[real.len() - self.periods..].iter().all(breaching) { State::Alarm } else { State::Ok }
    }

    /// Returns the minutes from `from` to `to` at whose end the alarm is in ALARM.
    pub fn minutes_in_alarm(&self, data: &Minutes, from: usize, to: usize, late: usize) -> Vec<usize> {
        let mut state = State::InsufficientData;
        let mut alarmed = Vec::new();
        for minute in from..=to {
            state = self.state(data, minute, late, 2, state);
            alarmed.extend((state == State::Alarm).then_some(minute));
        }
        alarmed
    }

    fn value(&self, id: &str, data: &Minutes, minute: usize, late: usize, periods: usize) -> Series {
        if let Some(expression) = self.expressions.get(id) {
            let metric = |id: &str| self.value(id, data, minute, late, periods);
            return Parser::new(expression, periods, &metric).whole();
        }
        let metric = self.metrics.get(id).unwrap_or_else(|| panic!("no {id}"));
        let sent = data.0.get(metric["MetricName"].as_str().unwrap()).cloned().unwrap_or_default();
        let length = self.period / 60;
        // The window ends with this minute.
        let buckets = (0..periods).rev().map(|back| {
            let end = (minute + 1).checked_sub(back * length)?;
            let known = end.min((minute + 1).saturating_sub(late));
            let from = end.saturating_sub(length).min(known);
            let values: Vec<f64> = sent.range(from..known).map(|(_, value)| *value).collect();
            values.iter().copied().reduce(match metric["Statistic"].as_str() {
                Some("Sum") => |one, other| one + other,
                Some("Maximum") => f64::max,
                other => panic!("{other:?}"),
            })
        });
        buckets.collect()
    }
}

/// The value of part of an expression.
#[derive(Debug, Clone)]
enum Term {
    Scalar(f64),
    Series(Series),
}

/// Evaluates one expression by recursive descent.
struct Parser<'a> {
    tokens: Vec<String>,
    at: usize,
    periods: usize,
    metric: &'a dyn Fn(&str) -> Series,
}

impl<'a> Parser<'a> {
    fn new(expression: &str, periods: usize, metric: &'a dyn Fn(&str) -> Series) -> Self {
        let mut tokens: Vec<String> = Vec::new();
        let mut characters = expression.chars().peekable();
        while let Some(first) = characters.next() {
            let mut token = first.to_string();
            while let Some(next) = characters.peek().copied() {
                let in_word = first.is_alphanumeric() && (next.is_alphanumeric() || "._".contains(next));
                let in_operator = "<>=!".contains(first) && next == '=';
                if !in_word && !in_operator {
                    break;
                }
                token.extend(characters.next());
            }
            tokens.extend((!first.is_whitespace()).then_some(token));
        }
        Self { tokens, at: 0, periods, metric }
    }

    fn whole(mut self) -> Series {
        let Term::Series(series) = self.either() else { panic!("the result must be a series") };
        assert_eq!(self.at, self.tokens.len(), "the rest of {:?} is not understood", self.tokens);
        series
    }

    fn take(&mut self, tokens: &[&str]) -> Option<String> {
        let token = self.tokens.get(self.at).filter(|token| tokens.contains(&token.as_str())).cloned()?;
        self.at += 1;
        Some(token)
    }

    fn either(&mut self) -> Term {
        let mut left = self.both();
        while self.take(&["OR", "||"]).is_some() {
            left = combined(left, self.both(), |one, other| f64::from(one != 0.0 || other != 0.0));
        }
        left
    }

    fn both(&mut self) -> Term {
        let mut left = self.comparison();
        while self.take(&["AND", "&&"]).is_some() {
            left = combined(left, self.comparison(), |one, other| f64::from(one != 0.0 && other != 0.0));
        }
        left
    }

    fn comparison(&mut self) -> Term {
        let left = self.sum();
        let Some(operator) = self.take(&["==", "!=", "<=", ">=", "<", ">"]) else { return left };
        let right = self.sum();
        combined(left, right, |one, other| {
            f64::from(match operator.as_str() {
                "==" => (one - other).abs() < f64::EPSILON,
                "!=" => (one - other).abs() >= f64::EPSILON,
                "<=" => one <= other,
                ">=" => one >= other,
                "<" => one < other,
                _ => one > other,
            })
        })
    }

    fn sum(&mut self) -> Term {
        let mut left = self.one();
        while let Some(operator) = self.take(&["+", "-"]) {
            let sign = if operator == "-" { -1.0 } else { 1.0 };
            left = combined(left, self.one(), |one, other| one + sign * other);
        }
        left
    }

    fn one(&mut self) -> Term {
        let token = self.tokens.get(self.at).cloned().unwrap_or_default();
        self.at += 1;
        if token == "(" {
            let inner = self.either();
            self.take(&[")"]).expect("a closing parenthesis");
            return inner;
        }
        if let Ok(number) = token.parse() {
            return Term::Scalar(number);
        }
        if self.take(&["("]).is_none() {
            return Term::Series((self.metric)(&token));
        }
        let mut arguments = vec![self.either()];
        while self.take(&[","]).is_some() {
            arguments.push(self.either());
        }
        self.take(&[")"]).expect("a closing parenthesis");
        self.call(&token, &arguments)
    }

    fn call(&self, function: &str, arguments: &[Term]) -> Term {
        Term::Series(match (function, arguments) {
            ("FILL", [Term::Series(series), Term::Scalar(filler)]) => {
                series.iter().map(|value| value.or(Some(*filler))).collect()
            }
            // The first value has none before it.
            ("DIFF", [Term::Series(series)]) => {
                let changes = series.windows(2).map(|pair| Some(pair[1]? - pair[0]?));
                [None].into_iter().chain(changes).take(self.periods).collect()
            }
            ("IF", [Term::Series(condition), chosen @ ..]) if (1..=2).contains(&chosen.len()) => {
                let value = |choice: Option<&Term>, at: usize| match choice? {
                    Term::Scalar(value) => Some(*value),
                    Term::Series(series) => series[at],
                };
                let choose = |(at, condition): (usize, &Option<f64>)| match (*condition)? {
                    0.0 => value(chosen.get(1), at),
                    _ => Some(value(chosen.first(), at).unwrap_or(0.0)),
                };
                condition.iter().enumerate().map(choose).collect()
            }
            _ => panic!("{function} of {arguments:?} is not known here"),
        })
    }
}

/// If one of two series has a value, the missing value of the other counts as 0.
fn combined(left: Term, right: Term, operation: impl Fn(f64, f64) -> f64) -> Term {
    let both = |one: Option<f64>, other: Option<f64>| {
        (one.is_some() || other.is_some()).then(|| operation(one.unwrap_or(0.0), other.unwrap_or(0.0)))
    };
    match (left, right) {
        (Term::Scalar(one), Term::Scalar(other)) => Term::Scalar(operation(one, other)),
        (Term::Series(one), Term::Scalar(other)) => {
            Term::Series(one.into_iter().map(|one| Some(operation(one?, other))).collect())
        }
        (Term::Scalar(one), Term::Series(other)) => {
            Term::Series(other.into_iter().map(|other| Some(operation(one, other?))).collect())
        }
        (Term::Series(one), Term::Series(other)) => {
            Term::Series(one.into_iter().zip(other).map(|(one, other)| both(one, other)).collect())
        }
    }
}
