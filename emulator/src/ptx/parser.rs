//! Tokens to a tree: what stands at module scope.

use super::lexer::{Spot, Token, tokens};
use super::{Function, Initial, Linkage, SyntaxError, Unit, Variable};

/// Parses a translation unit.
///
/// # Errors
/// With the line where the text stops being PTX.
pub fn parse(text: &str) -> Result<Unit<'_>, SyntaxError> {
    let mut parser = Parser { text, spots: tokens(text)?, at: 0 };
    let mut unit = Unit { address_size: 64, ..Unit::default() };
    while parser.at < parser.spots.len() {
        parser.item(&mut unit)?;
    }
    if unit.version == 0 {
        return Err(SyntaxError { line: 1, message: "no .version: this is not PTX".into() });
    }
    Ok(unit)
}

/// A place in the tokens.
pub(super) struct Parser<'a> {
    pub text: &'a str,
    pub spots: Vec<Spot<'a>>,
    pub at: usize,
}

pub(super) type Parsed<T> = Result<T, SyntaxError>;

impl<'a> Parser<'a> {
    fn item(&mut self, unit: &mut Unit<'a>) -> Parsed<()> {
        let word = self.word()?;
        match word {
            ".version" => {
                let Token::Float(version) = self.next()? else {
                    return self.error("a version such as 8.0 must follow");
                };
                unit.version = (version * 10.0).round() as u32;
            }
            ".target" => {
                let name = self.word()?;
                let digits: String = name.chars().filter(char::is_ascii_digit).collect();
                unit.target = digits.parse().unwrap_or(0);
                while self.take(b',') {
                    self.word()?;
                }
            }
            ".address_size" => unit.address_size = self.integer()? as u32,
            ".file" => {
                let number = self.integer()? as u32;
                let Token::Text(path) = self.next()? else { return self.error("a path in quotes must follow") };
                unit.files.push((number, path));
                while self.take(b',') {
                    self.integer()?;
                }
            }
            ".section" => {
                self.word()?;
                self.skip_braces()?;
            }
            ".pragma" => while self.next()? != Token::Mark(b';') {},
            ".alias" => {
                let name = self.word()?;
                self.expect(b',')?;
                unit.aliases.push((name, self.word()?));
                self.expect(b';')?;
            }
            ".loc" => drop(self.location()?),
            _ => {
                self.at -= 1;
                self.declaration(unit)?;
            }
        }
        Ok(())
    }

    fn declaration(&mut self, unit: &mut Unit<'a>) -> Parsed<()> {
        let mut linkage = Linkage::Internal;
        loop {
            match self.word()? {
                ".visible" | ".weak" | ".common" => linkage = Linkage::Visible,
                ".extern" => linkage = Linkage::External,
                ".entry" => {
                    unit.functions.push(self.function(true, linkage)?);
                    return Ok(());
                }
                ".func" => {
                    unit.functions.push(self.function(false, linkage)?);
                    return Ok(());
                }
                ".global" | ".const" | ".shared" | ".local" | ".param" => {
                    self.at -= 1;
                    unit.variables.extend(self.variables(linkage)?);
                    return Ok(());
                }
                other => return self.error(&format!("{other} is not known at module scope")),
            }
        }
    }

    fn function(&mut self, entry: bool, linkage: Linkage) -> Parsed<Function<'a>> {
        let line = self.line();
        let mut function = self.signature(entry, linkage)?;
        function.line = line;
        loop {
            match self.next()? {
                Token::Mark(b';') => return Ok(function),
                Token::Mark(b'{') => {
                    function.body = Some(self.body()?);
                    return Ok(function);
                }
                Token::Word(word) if word.starts_with('.') => {
                    let mut numbers = Vec::new();
                    while let Some(Token::Integer(number)) = self.peek() {
                        numbers.push(number as u32);
                        self.at += 1;
                        if !self.take(b',') {
                            break;
                        }
                    }
                    if word == ".pragma" || word == ".attribute" {
                        while !matches!(self.peek(), Some(Token::Mark(b';' | b'{'))) {
                            self.next()?;
                        }
                        self.take(b';');
                    }
                    function.directives.push((&word[1..], numbers));
                }
                _ => return self.error("a function's body, directive or ; must follow"),
            }
        }
    }

    /// `(returns) name (parameters)`, also of a prototype.
    pub fn signature(&mut self, entry: bool, linkage: Linkage) -> Parsed<Function<'a>> {
        let line = self.line();
        // `.attribute(.unified(…))` may stand before everything else.
        if self.peek() == Some(Token::Word(".attribute")) {
            self.at += 1;
            self.expect(b'(')?;
            while self.next()? != Token::Mark(b')') {}
            self.take(b')');
        }
        let returns = if self.peek() == Some(Token::Mark(b'(')) { self.parameters()? } else { Vec::new() };
        let name = self.word()?;
        let parameters = if self.peek() == Some(Token::Mark(b'(')) { self.parameters()? } else { Vec::new() };
        Ok(Function { line, linkage, entry, name, returns, parameters, directives: Vec::new(), body: None })
    }

    fn parameters(&mut self) -> Parsed<Vec<Variable<'a>>> {
        self.expect(b'(')?;
        let mut parameters = Vec::new();
        while !self.take(b')') {
            parameters.push(self.variable(Linkage::Internal)?);
            if !self.take(b',') {
                self.expect(b')')?;
                break;
            }
        }
        Ok(parameters)
    }

    /// `.global .u32 a, b[2] = {…};`
    pub fn variables(&mut self, linkage: Linkage) -> Parsed<Vec<Variable<'a>>> {
        let mut variables = vec![self.variable(linkage)?];
        while self.take(b',') {
            let mut next = variables[0].clone();
            next.initial.clear();
            self.declarator(&mut next)?;
            variables.push(next);
        }
        self.expect(b';')?;
        Ok(variables)
    }

    fn variable(&mut self, linkage: Linkage) -> Parsed<Variable<'a>> {
        let line = self.line();
        let space = self.word()?.strip_prefix('.').unwrap_or_default();
        if !matches!(space, "global" | "const" | "shared" | "local" | "param" | "reg") {
            return self.error("a state space such as .param must stand here");
        }
        let (align, vector, element) = (None, 1, "");
        let mut variable = Variable {
            line,
            linkage,
            space,
            align,
            vector,
            element,
            name: "",
            dimensions: Vec::new(),
            initial: Vec::new(),
        };
        while let Some(Token::Word(word)) = self.peek() {
            let Some(word) = word.strip_prefix('.') else { break };
            self.at += 1;
            match word {
                "align" => variable.align = Some(self.integer()?),
                // `.ptr .global .align 4` of a kernel's parameter: advice about what it points to.
                "ptr" => {
                    while let Some(Token::Word(".global" | ".const" | ".local" | ".shared" | ".align")) = self.peek() {
                        if self.word()? == ".align" {
                            self.integer()?;
                        }
                    }
                }
                "v2" => variable.vector = 2,
                "v4" => variable.vector = 4,
                "attribute" => {
                    self.expect(b'(')?;
                    while self.next()? != Token::Mark(b')') {}
                }
                "managed" => {}
                _ if variable.element.is_empty() => variable.element = word,
                _ => return self.error(&format!(".{word} is not known in a declaration")),
            }
        }
        self.declarator(&mut variable)?;
        Ok(variable)
    }

    fn declarator(&mut self, variable: &mut Variable<'a>) -> Parsed<()> {
        variable.name = self.word()?;
        variable.dimensions.clear();
        while self.take(b'[') {
            if self.take(b']') {
                variable.dimensions.push(None);
            } else {
                variable.dimensions.push(Some(self.expression()? as u64));
                self.expect(b']')?;
            }
        }
        if self.take(b'=') {
            self.initial(&mut variable.initial)?;
        }
        Ok(())
    }

    fn initial(&mut self, values: &mut Vec<Initial<'a>>) -> Parsed<()> {
        if self.take(b'{') {
            while !self.take(b'}') {
                self.initial(values)?;
                if !self.take(b',') {
                    self.expect(b'}')?;
                    break;
                }
            }
            return Ok(());
        }
        // `0xFF00(symbol)`: some bits of an address.
        if let (Some(Token::Integer(mask)), Some(Token::Mark(b'('))) =
            (self.peek(), self.spots.get(self.at + 1).map(|spot| spot.token))
        {
            self.at += 2;
            let first = self.next()?;
            let address = self.address(first, mask)?;
            self.expect(b')')?;
            values.push(address);
            return Ok(());
        }
        if self.begins_expression() {
            values.push(Initial::Integer(self.expression()?));
            return Ok(());
        }
        let negative = self.take(b'-');
        let value = match self.next()? {
            Token::Float(value) => Initial::Float(if negative { -value } else { value }),
            Token::Bits32(bits) => Initial::Bits32(bits),
            Token::Bits64(bits) => Initial::Float(f64::from_bits(bits)),
            word @ Token::Word(_) => self.address(word, u64::MAX)?,
            _ => return self.error("a constant must stand here"),
        };
        values.push(value);
        Ok(())
    }

    /// `symbol+4`, `generic(symbol)+4`, after its first word.
    fn address(&mut self, first: Token<'a>, mask: u64) -> Parsed<Initial<'a>> {
        let Token::Word(mut name) = first else { return self.error("a symbol must stand here") };
        let generic = name == "generic";
        let mut offset = 0;
        if generic {
            self.expect(b'(')?;
            name = self.word()?;
            offset = self.signed_offset()?;
            self.expect(b')')?;
        }
        Ok(Initial::Address { name, offset: offset + self.signed_offset()?, generic, mask })
    }

    /// `+4`, `-4`, `+-4`, or nothing.
    pub fn signed_offset(&mut self) -> Parsed<i64> {
        let plus = self.take(b'+');
        let minus = self.take(b'-');
        if !plus && !minus {
            return Ok(0);
        }
        let value = self.expression()? as i64;
        Ok(if minus { value.wrapping_neg() } else { value })
    }

    fn skip_braces(&mut self) -> Parsed<()> {
        self.expect(b'{')?;
        while self.next()? != Token::Mark(b'}') {}
        Ok(())
    }

    pub fn line(&self) -> u32 {
        self.spots.get(self.at).or(self.spots.last()).map_or(1, |spot| spot.line)
    }

    pub fn peek(&self) -> Option<Token<'a>> {
        self.spots.get(self.at).map(|spot| spot.token)
    }

    pub fn next(&mut self) -> Parsed<Token<'a>> {
        let Some(token) = self.peek() else { return self.error("the text ends too early") };
        self.at += 1;
        Ok(token)
    }

    pub fn word(&mut self) -> Parsed<&'a str> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            _ => self.error("a name must stand here"),
        }
    }

    pub fn integer(&mut self) -> Parsed<u64> {
        match self.peek() {
            Some(Token::Integer(value)) => {
                self.at += 1;
                Ok(value)
            }
            _ => self.error("a whole number must stand here"),
        }
    }

    pub fn take(&mut self, mark: u8) -> bool {
        let taken = self.peek() == Some(Token::Mark(mark));
        self.at += usize::from(taken);
        taken
    }

    pub fn expect(&mut self, mark: u8) -> Parsed<()> {
        if self.take(mark) { Ok(()) } else { self.error(&format!("{} must stand here", mark as char)) }
    }

    /// An error at the token that is next.
    pub fn error<T>(&self, message: &str) -> Parsed<T> {
        let found = match self.spots.get(self.at) {
            Some(spot) => format!(" (found `{}`)", &self.text[spot.start..spot.end]),
            None => " (found the end)".into(),
        };
        Err(SyntaxError { line: self.line(), message: format!("{message}{found}") })
    }
}
