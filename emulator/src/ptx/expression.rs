//! Constant expressions: those of C, on 64-bit integers.

use super::lexer::Token;
use super::parser::{Parsed, Parser};

/// Operators of two operands, the loosest binding first.
const LEVELS: [&[&str]; 10] = [
    &["||"],
    &["&&"],
    &["|"],
    &["^"],
    &["&"],
    &["==", "!="],
    &["<=", ">=", "<", ">"],
    &["<<", ">>"],
    &["+", "-"],
    &["*", "/", "%"],
];

impl Parser<'_> {
    /// Whether an integer expression begins here: a number, or what may stand before one.
    pub(super) fn begins_expression(&self) -> bool {
        let number = |at: usize| matches!(self.spots.get(at).map(|spot| spot.token), Some(Token::Integer(_)));
        let mut at = self.at;
        while let Some(Token::Mark(b'-' | b'~' | b'!' | b'(')) = self.spots.get(at).map(|spot| spot.token) {
            at += 1;
        }
        number(at)
    }

    /// An integer expression.
    pub(super) fn expression(&mut self) -> Parsed<i128> {
        let condition = self.level(0)?;
        if !self.take(b'?') {
            return Ok(condition);
        }
        let yes = self.expression()?;
        self.expect(b':')?;
        let no = self.expression()?;
        Ok(if condition != 0 { yes } else { no })
    }

    fn level(&mut self, level: usize) -> Parsed<i128> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.level(level + 1)?;
        while let Some(operator) = operators.iter().find(|operator| self.sees(operator)) {
            self.at += operator.len();
            let right = self.level(level + 1)?;
            left = match self.combine(operator, left, right) {
                Some(value) => value,
                None => return self.error("a division by zero"),
            };
        }
        Ok(left)
    }

    /// Whether these characters come next, without space between, and no longer operator does.
    fn sees(&self, operator: &str) -> bool {
        let mark = |i: usize| match self.spots.get(self.at + i) {
            Some(spot) => match spot.token {
                // The lexer takes it for the beginning of a register's name.
                Token::Word("%") => Some(b'%'),
                Token::Mark(mark) if i == 0 || self.spots[self.at + i - 1].end == spot.start => Some(mark),
                _ => None,
            },
            None => None,
        };
        let here = operator.bytes().enumerate().all(|(i, byte)| mark(i) == Some(byte));
        // `<` is not `<<`, `|` is not `||`, and so on.
        let longer = operator.len() == 1
            && matches!(
                (operator.as_bytes()[0], mark(1)),
                (b'<', Some(b'<' | b'=')) | (b'>', Some(b'>' | b'=')) | (b'|', Some(b'|')) | (b'&', Some(b'&'))
            );
        here && !longer
    }

    fn combine(&self, operator: &str, a: i128, b: i128) -> Option<i128> {
        // Constants are .s64 or .u64; both wrap alike.
        let wrap = |value: i128| i128::from(value as i64);
        Some(match operator {
            "||" => (a != 0 || b != 0).into(),
            "&&" => (a != 0 && b != 0).into(),
            "|" => a | b,
            "^" => a ^ b,
            "&" => a & b,
            "==" => (a == b).into(),
            "!=" => (a != b).into(),
            "<=" => (a <= b).into(),
            ">=" => (a >= b).into(),
            "<" => (a < b).into(),
            ">" => (a > b).into(),
            "<<" => wrap(a << (b & 63)),
            ">>" => a >> (b & 63),
            "+" => wrap(a + b),
            "-" => wrap(a - b),
            "*" => wrap(a.wrapping_mul(b)),
            "/" => a.checked_div(b)?,
            _ => a.checked_rem(b)?,
        })
    }

    fn unary(&mut self) -> Parsed<i128> {
        if self.take(b'-') {
            return Ok(-self.unary()?);
        }
        if self.take(b'+') {
            return self.unary();
        }
        if self.take(b'~') {
            return Ok(!self.unary()?);
        }
        if self.take(b'!') {
            return Ok((self.unary()? == 0).into());
        }
        if self.take(b'(') {
            if let Some(Token::Word(".s64" | ".u64")) = self.peek() {
                self.at += 1;
                self.expect(b')')?;
                return self.unary();
            }
            let value = self.expression()?;
            self.expect(b')')?;
            return Ok(value);
        }
        Ok(self.integer()?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::lexer::tokens;
    use super::*;

    #[test]
    fn operators_bind_as_in_c() {
        let value = |text| {
            let mut parser = Parser { text, spots: tokens(text).unwrap(), at: 0 };
            let value = parser.expression().unwrap();
            assert_eq!(parser.at, parser.spots.len(), "{text}");
            value
        };
        assert_eq!(value("(3 + 4) * 2 - (1 << 2) | 1"), 11);
        assert_eq!(value("1 + 2 * 3 << 1 == 14 && 7 % 4 >= 3"), 1);
        assert_eq!(value("-5 / 2"), -2);
        assert_eq!(value("~0 & 0xFF ^ 1"), 0xFE);
        assert_eq!(value("!3 ? 1 : 1 < 2 ? 5 : 6"), 5);
        assert_eq!(value("(.u64)7 >> 1"), 3);
        assert_eq!(value("0x8000000000000000"), 1 << 63);
    }
}
