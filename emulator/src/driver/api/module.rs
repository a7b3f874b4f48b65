//! `cuModule*`.

use std::ffi::{c_char, c_uint, c_void};

use super::{Out, Text, call};
use crate::driver::error::{Failure, Outcome, Status, fail, invalid};
use crate::driver::module::ptx_of_image;
use crate::driver::state::Locked;

/// Loads an image of text.
fn load(driver: &mut Locked, call: &str, module: &Out<*mut c_void>, image: *const c_void) -> Outcome<()> {
    driver.current()?;
    driver.refuse_while_capturing(call)?;
    // SAFETY: the interface wants an image there: a binary or a text that ends in NUL.
    let ptx = unsafe { ptx_of_image(image) }?;
    let serial = driver.load_ptx(ptx)?;
    module.put(driver.modules.handle(serial))
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoadData(module: Out<*mut c_void>, image: *const c_void) -> Status {
    call("cuModuleLoadData", |driver| load(driver, "cuModuleLoadData", &module, image))
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoad(module: Out<*mut c_void>, path: Text) -> Status {
    call("cuModuleLoad", |driver| {
        let path = path.read()?;
        let mut image = match std::fs::read(path) {
            Ok(image) => image,
            Err(error) => return fail(Status::FILE_NOT_FOUND, format!("{path}: {error}")),
        };
        image.push(0);
        let located = |failure: Failure| Failure { text: format!("{path}: {}", failure.text), ..failure };
        load(driver, "cuModuleLoad", &module, image.as_ptr().cast()).map_err(located)
    })
}

/// Buffers for the just-in-time compiler's messages, by their numbers in `CUjit_option`.
const INFO_LOG: c_uint = 3;
const INFO_LOG_BYTES: c_uint = 4;
const ERROR_LOG: c_uint = 5;
const ERROR_LOG_BYTES: c_uint = 6;
/// `CU_JIT_NUM_OPTIONS` of the newest interface known.
const OPTIONS: c_uint = 36;

/// A log that the caller has room for: the buffer, its size, and where in the values the size stands.
#[derive(Clone, Copy, Default)]
struct Log {
    buffer: Option<*mut c_char>,
    bytes: usize,
    size_at: Option<usize>,
}

impl Log {
    /// Writes a text as far as there is room, and its length in place of the size.
    ///
    /// # Safety
    /// The buffer has room for `bytes` characters, and `values` for what the options say.
    unsafe fn write(&self, text: &str, values: *mut *mut c_void) {
        let room = self.bytes.saturating_sub(1).min(text.len());
        if let Some(buffer) = self.buffer
            && self.bytes > 0
        {
            // SAFETY: `room` and the NUL fit the buffer, by the caller's promise.
            unsafe {
                buffer.cast::<u8>().copy_from(text.as_ptr(), room);
                buffer.add(room).write(0);
            }
        }
        if let Some(index) = self.size_at {
            // SAFETY: the option stands at this index, so there is a value.
            unsafe { values.add(index).write(std::ptr::without_provenance_mut(room)) };
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoadDataEx(
    module: Out<*mut c_void>,
    image: *const c_void,
    count: c_uint,
    options: *const c_uint,
    values: *mut *mut c_void,
) -> Status {
    call("cuModuleLoadDataEx", |driver| {
        let (mut info, mut error) = (Log::default(), Log::default());
        if count > 0 && (options.is_null() || values.is_null()) {
            return invalid("options or their values are null");
        }
        for index in 0..count as usize {
            // SAFETY: the interface wants `count` options and values there.
            let (option, value) = unsafe { (options.add(index).read(), values.add(index).read()) };
            match option {
                INFO_LOG => info.buffer = Some(value.cast()),
                ERROR_LOG => error.buffer = Some(value.cast()),
                INFO_LOG_BYTES => (info.bytes, info.size_at) = (value.addr(), Some(index)),
                ERROR_LOG_BYTES => (error.bytes, error.size_at) = (value.addr(), Some(index)),
                // The others tune a compiler that is not here.
                0..OPTIONS => {}
                other => return invalid(format!("{other} is no option of the just-in-time compiler")),
            }
        }
        let outcome = load(driver, "cuModuleLoadDataEx", &module, image);
        let refusal = outcome.as_ref().err().map_or("", |failure| &failure.text);
        let told = if refusal.is_empty() { "loaded by the PTX emulator; nothing was compiled" } else { "" };
        // SAFETY: buffers, sizes and values are as the interface wants them.
        unsafe {
            info.write(told, values);
            error.write(refusal, values);
        }
        outcome
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(module: *mut c_void) -> Status {
    call("cuModuleUnload", |driver| driver.unload(module))
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleGetFunction(function: Out<*mut c_void>, module: *mut c_void, name: Text) -> Status {
    call("cuModuleGetFunction", |driver| {
        let serial = driver.function_of(module, name.read()?)?;
        function.put(driver.functions.handle(serial))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleGetGlobal_v2(address: Out<u64>, bytes: Out<usize>, module: *mut c_void, name: Text) -> Status {
    call("cuModuleGetGlobal_v2", |driver| {
        let name = name.read()?;
        let module = &driver.modules.get(module)?.resident.module;
        let Some((start, length)) = module.global(name) else {
            let names: Vec<&str> = module.module().variables().iter().map(|v| v.name.as_str()).collect();
            return fail(Status::NOT_FOUND, format!("the module has no variable {name}; it has: {}", names.join(", ")));
        };
        address.put_if_wanted(start);
        bytes.put_if_wanted(length as usize);
        Ok(())
    })
}
