//! Tokens to a tree: bodies of functions.

use super::lexer::Token;
use super::parser::{Parsed, Parser};
use super::{At, Instruction, Linkage, Location, Operand, Statement};

impl<'a> Parser<'a> {
    /// A body after its opening brace, to the brace that closes it.
    pub(super) fn body(&mut self) -> Parsed<Vec<Statement<'a>>> {
        let mut statements = Vec::new();
        let mut depth = 0;
        loop {
            match self.peek() {
                Some(Token::Mark(b'{')) => {
                    self.at += 1;
                    depth += 1;
                    statements.push(Statement::Open);
                }
                Some(Token::Mark(b'}')) => {
                    self.at += 1;
                    if depth == 0 {
                        return Ok(statements);
                    }
                    depth -= 1;
                    statements.push(Statement::Close);
                }
                // An empty statement.
                Some(Token::Mark(b';')) => self.at += 1,
                Some(Token::Mark(b'@')) => statements.push(self.instruction()?),
                Some(Token::Word(".param" | ".local" | ".shared" | ".global" | ".const")) => {
                    statements.extend(self.variables(Linkage::Internal)?.into_iter().map(Statement::Variable));
                }
                Some(Token::Word(word)) => statements.extend(self.statement(word)?),
                _ => return self.error("a statement must stand here"),
            }
        }
    }

    fn statement(&mut self, word: &'a str) -> Parsed<Option<Statement<'a>>> {
        let line = self.line();
        Ok(Some(match word {
            ".reg" => {
                self.at += 1;
                self.registers(line)?
            }
            ".loc" => {
                self.at += 1;
                Statement::Location(self.location()?)
            }
            ".pragma" => {
                while self.next()? != Token::Mark(b';') {}
                return Ok(None);
            }
            _ if word.starts_with('.') => return self.error(&format!("{word} is not known in a body")),
            _ if self.spots.get(self.at + 1).is_some_and(|spot| spot.token == Token::Mark(b':')) => {
                self.at += 2;
                match self.peek() {
                    Some(Token::Word(".branchtargets" | ".calltargets")) => {
                        self.at += 1;
                        let mut targets = vec![self.word()?];
                        while self.take(b',') {
                            targets.push(self.word()?);
                        }
                        self.expect(b';')?;
                        Statement::Targets(word, targets)
                    }
                    Some(Token::Word(".callprototype")) => {
                        self.at += 1;
                        let prototype = self.signature(false, Linkage::Internal)?;
                        while !self.take(b';') {
                            self.next()?;
                        }
                        Statement::Prototype(word, Box::new(prototype))
                    }
                    _ => Statement::Label(word, line),
                }
            }
            _ => self.instruction()?,
        }))
    }

    fn registers(&mut self, line: u32) -> Parsed<Statement<'a>> {
        let mut vector = 1;
        let mut element = self.word()?;
        if let ".v2" | ".v4" = element {
            vector = if element == ".v2" { 2 } else { 4 };
            element = self.word()?;
        }
        let element = element.strip_prefix('.').unwrap_or_default();
        let mut names = Vec::new();
        loop {
            let name = self.word()?;
            let mut count = None;
            if self.take(b'<') {
                count = Some(self.integer()? as u32);
                self.expect(b'>')?;
            }
            names.push((name, count));
            if !self.take(b',') {
                break;
            }
        }
        self.expect(b';')?;
        Ok(Statement::Registers { line, element, vector, names })
    }

    /// What follows `.loc`.
    pub(super) fn location(&mut self) -> Parsed<Location<'a>> {
        let mut location = Location { at: self.at()?, ..Location::default() };
        while self.take(b',') {
            match self.word()? {
                "function_name" => {
                    location.function = self.word()?;
                    self.signed_offset()?;
                }
                "inlined_at" => {
                    location.inlined_at = Some(self.at()?);
                }
                _ => return self.error("function_name or inlined_at must stand here"),
            }
        }
        Ok(location)
    }

    /// File, line and column.
    fn at(&mut self) -> Parsed<At> {
        let mut number = || self.integer().map(|number| number as u32);
        Ok(At { file: number()?, line: number()?, column: number()? })
    }

    fn instruction(&mut self) -> Parsed<Statement<'a>> {
        let mut guard = None;
        if self.take(b'@') {
            let negated = self.take(b'!');
            guard = Some((self.word()?, negated));
        }
        let first = self.at;
        let line = self.line();
        let opcode = self.word()?.split('.').collect();
        let mut operands = Vec::new();
        while !self.take(b';') {
            // Of a call, parentheses hold lists; elsewhere a constant expression may begin with them.
            let list = self.spots[first].token == Token::Word("call")
                || matches!(self.spots[first].token, Token::Word(word) if word.starts_with("call."));
            operands.push(if !list && self.begins_expression() {
                Operand::Integer(self.expression()?)
            } else {
                self.operand()?
            });
            // `call (r), f, (a)` has commas everywhere; a missing one is only allowed at the end.
            if !self.take(b',') {
                self.expect(b';')?;
                break;
            }
        }
        let text = &self.text[self.spots[first].start..self.spots[self.at - 2].end];
        Ok(Statement::Instruction(Instruction { line, text, guard, opcode, operands }))
    }

    fn operand(&mut self) -> Parsed<Operand<'a>> {
        let operand = match self.next()? {
            Token::Mark(b'{') => Operand::Vector(self.operands_until(b'}')?),
            Token::Mark(b'[') => Operand::Memory(self.operands_until(b']')?),
            Token::Mark(b'(') => Operand::List(self.operands_until(b')')?),
            Token::Mark(b'!') => Operand::Not(self.word()?),
            Token::Mark(b'-') => match self.next()? {
                Token::Integer(value) => Operand::Integer(-i128::from(value)),
                Token::Float(value) => Operand::Float(-value),
                _ => return self.error("a number must follow the sign"),
            },
            Token::Integer(_) => {
                self.at -= 1;
                Operand::Integer(self.expression()?)
            }
            Token::Float(value) => Operand::Float(value),
            Token::Bits32(bits) => Operand::Bits32(bits),
            Token::Bits64(bits) => Operand::Bits64(bits),
            Token::Word(name) => match self.peek() {
                Some(Token::Mark(b'+' | b'-')) => Operand::Offset(name, self.signed_offset()?),
                _ => Operand::Name(name),
            },
            _ => {
                self.at -= 1;
                return self.error("an operand must stand here");
            }
        };
        if self.take(b'|') {
            return Ok(Operand::Pair(Box::new(operand), Box::new(self.operand()?)));
        }
        Ok(operand)
    }

    fn operands_until(&mut self, close: u8) -> Parsed<Vec<Operand<'a>>> {
        let mut operands = Vec::new();
        while !self.take(close) {
            operands.push(self.operand()?);
            if !self.take(b',') {
                self.expect(close)?;
                break;
            }
        }
        Ok(operands)
    }
}

#[cfg(test)]
mod tests {
    use crate::ptx::{Operand, Statement, parse};

    const HEAD: &str = ".version 8.0\n.target sm_80\n.address_size 64\n";

    fn body(text: &str) -> Vec<String> {
        let source =
            format!("{HEAD}.visible .entry k(.param .u64 .ptr .global .align 4 k_0) .maxntid 128, 1, 1 {{\n{text}\n}}");
        let unit = parse(&source).unwrap();
        assert_eq!(unit.functions[0].directives, [("maxntid", vec![128, 1, 1])]);
        unit.functions[0].body.as_ref().unwrap().iter().map(|statement| format!("{statement:?}")).collect()
    }

    #[test]
    fn instructions_know_their_text_and_line() {
        let source =
            format!("{HEAD}.func f {{ @!%p1 ld.global.v2.f32 {{%f1, %f2}}, [%rd1+-8];\n call.uni (r), g, (a, 1); }}");
        let unit = parse(&source).unwrap();
        let Statement::Instruction(load) = &unit.functions[0].body.as_ref().unwrap()[0] else { panic!() };
        assert_eq!(
            (load.line, load.guard, load.text),
            (4, Some(("%p1", true)), "ld.global.v2.f32 {%f1, %f2}, [%rd1+-8]")
        );
        assert_eq!(load.opcode, ["ld", "global", "v2", "f32"]);
        assert_eq!(load.operands[1], Operand::Memory(vec![Operand::Offset("%rd1", -8)]));
        let Statement::Instruction(call) = &unit.functions[0].body.as_ref().unwrap()[1] else { panic!() };
        assert_eq!(call.line, 5);
        assert_eq!(call.operands[2], Operand::List(vec![Operand::Name("a"), Operand::Integer(1)]));
    }

    #[test]
    fn statements_of_every_kind() {
        let kinds = body(
            ".reg .b32 %r<5>, x; { .local .align 16 .b8 d[4]; } $L: ts: .branchtargets $L, $M;\n\
             p: .callprototype (.param .b32 _) _ (.param .b32 _);\n.pragma \"nounroll\";\n\
             .loc 2 5 1, function_name $L__i0, inlined_at 1 32 3\n shfl.sync.idx.b32 a|p, b, 1, 2, -1; ret;",
        );
        assert_eq!(kinds.len(), 10, "{kinds:#?}");
        assert!(kinds[8].contains("Pair(Name(\"a\"), Name(\"p\"))"), "{}", kinds[8]);
        assert!(kinds[7].contains("inlined_at: Some(At { file: 1, line: 32, column: 3 })"), "{}", kinds[7]);
    }

    #[test]
    fn errors_name_the_line() {
        for (text, line) in [("ld.f32 [;", 4), ("\n}}\n", 5), (".bad x;", 4), ("add a b;", 4)] {
            let error = parse(&format!("{HEAD}.func f {{ {text} }}")).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error}");
        }
        assert!(parse("").unwrap_err().message.contains("not PTX"));
    }

    #[test]
    fn variables_and_initialisers() {
        let source = format!(
            "{HEAD}.const .align 4 .b8 t[2][3] = {{{{1,2,3}},{{4}}}};\n.global .u64 g = generic(t)+8, h;\n\
             .extern .shared .align 16 .b8 dyn[];\n.file 1 \"a.cu\", 5, 6\n.section .debug_str {{ x: .b8 0 }}"
        );
        let unit = parse(&source).unwrap();
        assert_eq!(unit.variables.len(), 4);
        assert_eq!(unit.variables[0].initial.len(), 4);
        assert_eq!(unit.variables[3].dimensions, [None]);
        assert_eq!(unit.files, [(1, "a.cu")]);
    }
}
