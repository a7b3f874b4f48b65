//! Calls of device functions, and of those that the machine provides itself.

use super::core::{Core, FUNCTION_WINDOW};
use super::lanes::Frame;
use super::print;
use super::trouble::{Outcome, Trouble};
use super::warp::{Fragment, Warp};
use crate::decode::op::{BuiltIn, Call, Op};
use crate::watch::FindingKind;

/// Calls. None when it is over already; else the lanes inside the function, and those that call another by the same
/// instruction and are still to do so.
///
/// # Errors
/// When the target is no function, or the stack overflows.
///
/// # Safety
/// The decoder placed the operands.
pub unsafe fn call(
    core: &mut Core<'_>,
    warp: &mut Warp,
    frame: &Frame,
    op: &Op,
    from: Fragment,
) -> Outcome<Option<(Fragment, Option<Fragment>)>> {
    let module = core.grid.module;
    let call = &module.calls[op.x as usize];
    if let Some(built_in) = call.built_in {
        provide(core, warp, built_in, call, &from)?;
        return Ok(None);
    }
    let (function, lanes) = match call.function {
        Some(function) => (function, from.mask),
        None => {
            // SAFETY: by the caller's promise.
            let targets = unsafe { frame.row::<u64>(op.a) };
            let first = targets[from.mask.trailing_zeros() as usize];
            let same = (0..32).filter(|lane| from.mask >> lane & 1 != 0 && targets[*lane as usize] == first);
            let lanes = same.fold(0, |lanes, lane| lanes | 1u32 << lane);
            let function = first.wrapping_sub(FUNCTION_WINDOW);
            if function >= module.functions.len() as u64 {
                let message = format!("calls {first:#x}, which is no function");
                return Err(Trouble::new(FindingKind::Undefined, lanes.trailing_zeros(), message));
            }
            (function as u32, lanes)
        }
    };
    let callee = &module.functions[function as usize];
    if callee.parameters.len() != call.arguments.len() {
        let message = format!(
            "calls {} with {} arguments; it takes {}",
            callee.name,
            call.arguments.len(),
            callee.parameters.len()
        );
        return Err(Trouble::new(FindingKind::Undefined, lanes.trailing_zeros(), message));
    }
    let caller = warp.nodes[from.node as usize];
    let node = warp.enter(from.node, from.pc + 1, function, &module.functions, lanes)?;
    let base = warp.nodes[node as usize].local;
    for ((at, bytes), (to, room)) in call.arguments.iter().zip(&callee.parameters) {
        for lane in (0..32).filter(|lane| lanes >> lane & 1 != 0) {
            warp.local.copy(lane, base + to, caller.local + at, *bytes.min(room));
        }
    }
    let rest = (from.mask != lanes).then_some(Fragment { mask: from.mask & !lanes, ..from });
    Ok(Some((Fragment { pc: callee.entry, mask: lanes, node, ..from }, rest)))
}

/// Returns to the caller, with the value.
pub fn give_back(core: &Core<'_>, warp: &mut Warp, from: Fragment) -> Fragment {
    let module = core.grid.module;
    let inside = warp.nodes[from.node as usize];
    let callee = &module.functions[inside.function as usize];
    let call = &module.calls[module.code[inside.return_pc as usize - 1].x as usize];
    let outside = warp.nodes[inside.parent as usize];
    if let (Some((to, room)), Some((at, bytes))) = (call.returns, callee.returns) {
        for lane in (0..32).filter(|lane| from.mask >> lane & 1 != 0) {
            warp.local.copy(lane, outside.local + to, inside.local + at, bytes.min(room));
        }
    }
    let (node, pc) = warp.leave(from.node, &module.functions, from.mask);
    Fragment { pc, node, ..from }
}

/// What the machine does itself.
fn provide(core: &mut Core<'_>, warp: &mut Warp, what: BuiltIn, call: &Call, from: &Fragment) -> Outcome {
    let base = warp.nodes[from.node as usize].local;
    for lane in (0..32).filter(|lane| from.mask >> lane & 1 != 0) {
        let argument = |warp: &Warp, index: usize| -> Outcome<u64> {
            let Some((at, bytes)) = call.arguments.get(index) else { return Ok(0) };
            warp.local.read(lane, base + at, (*bytes).min(8), true).map_err(|_| {
                let message = format!("argument {index} of a call was never set");
                Trouble::new(FindingKind::Uninitialised, lane as u32, message)
            })
        };
        let returned = match what {
            BuiltIn::Print => {
                let (format, values) = (argument(warp, 0)?, argument(warp, 1)?);
                if format == 0 {
                    Some(u64::from(u32::MAX))
                } else {
                    // Other than in C, the result is not the number of characters, which the device does not know.
                    let (text, taken) = print::format(core, warp, lane as u32, format, values)?;
                    core.printed.push_str(&text);
                    Some(taken.into())
                }
            }
            BuiltIn::AssertFail => {
                let message = print::string(core, warp, lane as u32, argument(warp, 0)?)?;
                let file = print::string(core, warp, lane as u32, argument(warp, 1)?)?;
                let line = argument(warp, 2)?;
                let function = print::string(core, warp, lane as u32, argument(warp, 3)?)?;
                let [x, y, z] = [0, 1, 2].map(|axis| warp.special.thread[axis].0[lane]);
                let message =
                    format!("assertion `{message}` failed at {file}:{line} in {function}, thread ({x},{y},{z})");
                return Err(Trouble::new(FindingKind::Assert, lane as u32, message));
            }
            BuiltIn::Allocate => {
                let bytes = argument(warp, 0)?;
                Some(core.grid.memory.allocate(bytes).unwrap_or(0))
            }
            BuiltIn::Free => {
                let address = argument(warp, 0)?;
                if address != 0
                    && let Err(fault) = core.grid.memory.free(address)
                {
                    return Err(Trouble::new(FindingKind::OutOfBounds, lane as u32, format!("free: {fault}")));
                }
                None
            }
        };
        if let (Some(value), Some((at, bytes))) = (returned, call.returns) {
            warp.local.write(lane, base + at, bytes.min(8), value).expect("a variable of the caller's frame");
        }
    }
    Ok(())
}
