//! Choosing a device: what the program says where CUDA is not, or not whole, and the emulated one from end to end.

mod support;

use std::path::Path;
use std::process::{Command, Output};

/// Exit code where a device cannot be had.
const UNAVAILABLE: i32 = 69;

/// A folder with some data in `data`.
fn world() -> tempfile::TempDir {
    world_of(2, [200, 60, 60])
}

/// The same with so many channels, and timesteps in its parts.
fn world_of(n_channel: usize, lengths: [usize; 3]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    support::write_recording(&data, "a", n_channel, lengths, |channel, time| {
        ((time * 7919 + channel * 31) % 101) as f64 / 101.0 - 0.5
    });
    folder
}

/// The smallest model that fused kernels know.
const SMALL: &str = "data --layers 1 --heads 4 --d-model 32 --context 16 --validation-windows 1";

/// A command in a folder.
fn command(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
    command.args(line.split(' ')).current_dir(folder).env("XDG_CACHE_HOME", folder.join("cache"));
    command
}

/// `gpt2meg train` in a folder, with these flags.
fn train(folder: &Path, flags: &str) -> Command {
    command(folder, &format!("train {flags}"))
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Whether this machine has a CUDA driver: the tests are of machines without.
fn has_driver() -> bool {
    gpt2meg::device::cuda::has_driver()
}

#[test]
fn without_a_driver_auto_is_the_cpu_and_cuda_one_clear_error() {
    if has_driver() {
        return;
    }
    let world = world();
    let auto = train(world.path(), &format!("{SMALL} --device auto --out auto --steps 3")).output().unwrap();
    assert!(auto.status.success(), "{}", text(&auto));
    let said = text(&auto);
    assert!(said.contains("on CPU") && !said.contains("CUDA") && !said.contains("GPU"), "{said}");
    let cuda = train(world.path(), &format!("{SMALL} --device cuda --out cuda --steps 3")).output().unwrap();
    assert_eq!(cuda.status.code(), Some(UNAVAILABLE), "{}", text(&cuda));
    let said = text(&cuda);
    assert!(said.contains("no CUDA driver") && said.contains("--device cpu") && said.lines().count() == 1, "{said}");
    assert!(!world.path().join("cuda").exists(), "nothing is left behind");
}

#[cfg(feature = "emulated")]
mod emulated {
    use super::*;
    use ptx_emulator::toolkit::{REQUIRED_VARIABLE, Toolkit};
    use std::process::Stdio;

    /// Whether the machine's own card is asked for: with GPT2MEG_TEST_GPU set, a run is one on it.
    fn is_real() -> bool {
        std::env::var_os("GPT2MEG_TEST_GPU").is_some()
    }

    /// The GPU to run on.
    fn device() -> &'static str {
        if is_real() { "cuda" } else { "emulated" }
    }

    /// The compiler's folder of libraries, for the loader; none is a failure where it was installed on purpose.
    fn compiler() -> Option<std::path::PathBuf> {
        let found = Toolkit::find();
        if is_real() && found.is_err() {
            // The program finds its own, or says that there is none.
            return Some(std::path::PathBuf::new());
        }
        assert!(found.is_ok() || std::env::var_os(REQUIRED_VARIABLE).is_none(), "{}", found.unwrap_err());
        Some(found.ok()?.nvrtc().parent().unwrap().to_path_buf())
    }

    /// As [`train`], on the GPU, with the compiler where the loader finds it.
    fn emulated(folder: &Path, compiler: &Path, flags: &str) -> Output {
        run(folder, compiler, &format!("train --device {} {flags}", device()))
    }

    /// A command in a folder, with the compiler where the loader finds it.
    fn run(folder: &Path, compiler: &Path, line: &str) -> Output {
        command(folder, line).env("LD_LIBRARY_PATH", compiler).output().unwrap()
    }

    /// Lines but the one before compiling.
    fn told(said: &str) -> usize {
        said.lines().filter(|line| !line.contains(": compiling the kernels")).count()
    }

    /// The training losses of a run.
    fn losses(run: &Path) -> Vec<f64> {
        let log = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let loss = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["nats"].as_f64().unwrap();
        log.lines().map(loss).collect()
    }

    /// The tensors of a run's last checkpoint: parameters and moments.
    fn tensors(run: &Path) -> Vec<(String, Vec<u8>)> {
        let last =
            std::fs::read_dir(run.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
        let container = std::fs::read(last).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&container).unwrap();
        let mut all: Vec<_> = tensors.tensors().into_iter().map(|(name, t)| (name, t.data().to_vec())).collect();
        all.sort();
        all
    }

    #[test]
    fn a_run_on_the_emulator_is_a_run() {
        let Some(compiler) = compiler() else { return };
        let world = world();
        let folder = world.path();
        let whole = emulated(folder, &compiler, &format!("{SMALL} --out whole --steps 3"));
        assert!(whole.status.success(), "{}", text(&whole));
        let name = if is_real() { "CUDA (" } else { "CUDA (PTX emulator" };
        assert!(text(&whole).contains(&format!("on {name}")), "{}", text(&whole));
        // Before the minute that compiling may take, it is said.
        assert!(text(&whole).starts_with(name) && text(&whole).contains(": compiling the kernels"), "{}", text(&whole));
        let cpu = train(folder, &format!("{SMALL} --device cpu --out cpu --steps 3")).output().unwrap();
        assert!(cpu.status.success(), "{}", text(&cpu));
        for (gpu, cpu) in losses(&folder.join("whole")).iter().zip(losses(&folder.join("cpu"))) {
            assert!((gpu - cpu).abs() <= cpu / 512.0, "{gpu} for the CPU's {cpu}");
        }

        let generate = format!("generate whole --data data --out made.npy --timesteps 20 --device {}", device());
        let made = run(folder, &compiler, &generate);
        assert!(made.status.success() && folder.join("made.npy").exists(), "{}", text(&made));

        let scored = run(folder, &compiler, &format!("score whole data --json --device {}", device()));
        let scores: serde_json::Value = serde_json::from_slice(&scored.stdout).unwrap();
        assert!(scored.status.success() && scores["device"].as_str().unwrap().starts_with(name), "{}", text(&scored));

        let kernels = folder.join("cache/gpt2meg/kernels");
        let kept = || std::fs::read_dir(&kernels).unwrap().map(|entry| entry.unwrap().path());
        let n_kernel = kept().count();
        assert!(n_kernel > 5, "compiled kernels are kept");
        // One that is whole, and still of no use to the driver, is compiled again.
        for path in kept() {
            let all = std::fs::read(&path).unwrap();
            let first = String::from_utf8(all.split(|&byte| byte == b'\n').next().unwrap().to_vec()).unwrap();
            assert!(first.contains(if is_real() { ", NVRTC " } else { ", NVRTC 12.9.86, " }), "{first}");
            let (key, text) = (first.split("; crc32c").next().unwrap(), "no PTX\0");
            std::fs::write(&path, format!("{key}; crc32c {:08x}\n{text}", crc32c::crc32c(text.as_bytes()))).unwrap();
        }

        // Stopped after two steps and resumed, with the kernels of the first run: the same bytes.
        let part = emulated(folder, &compiler, &format!("{SMALL} --out part --steps 2"));
        assert!(part.status.success(), "{}", text(&part));
        let resumed = emulated(folder, &compiler, "--out part --steps 3 --resume");
        assert!(resumed.status.success(), "{}", text(&resumed));
        let step = |run: &str| tensors(&folder.join(run));
        assert!(step("part") == step("whole"), "resumed, it is another model");
        assert_eq!(std::fs::read_dir(&kernels).unwrap().count(), n_kernel, "and nothing had to be compiled");
        assert!(!text(&resumed).contains("was computed by"), "{}", text(&resumed));

        // Ctrl-C in the midst of its steps, which are captured from the second on, and resumed: the same bytes.
        let more = format!("train {SMALL} --device {} --out stopped --steps 1000 --json", device());
        let mut child = command(folder, &more)
            .env("LD_LIBRARY_PATH", &compiler)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let log = folder.join("stopped/metrics.jsonl");
        let logged = || std::fs::read_to_string(&log).map_or(0, |log| log.lines().count());
        while logged() < 3 {
            assert_eq!(child.try_wait().unwrap(), None, "it ended by itself");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        // SAFETY: a plain system call on a process of ours that has not been waited for.
        assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
        let stopped = child.wait_with_output().unwrap();
        assert_eq!(stopped.status.code(), Some(130));
        let facts: serde_json::Value = serde_json::from_slice(&stopped.stdout).unwrap();
        let steps = facts["steps"].as_u64().unwrap() + 2;
        assert!(facts["device"].as_str().unwrap().starts_with(name) && steps < 1000, "{facts}");
        assert!(facts["computed_by"].as_str().unwrap().contains(", NVRTC "), "{facts}");
        let gone_on = emulated(folder, &compiler, &format!("--out stopped --steps {steps} --resume"));
        assert!(gone_on.status.success(), "{}", text(&gone_on));
        let at_once = emulated(folder, &compiler, &format!("{SMALL} --out at_once --steps {steps}"));
        assert!(at_once.status.success(), "{}", text(&at_once));
        assert!(step("stopped") == step("at_once"), "stopped and resumed, it is another model");

        // Elsewhere it goes on as well, but not to the same bits.
        let moved = train(folder, "--out part --steps 4 --resume --device cpu").output().unwrap();
        let said = text(&moved);
        let both = match is_real() {
            true => ["computed by CUDA (", ", NVRTC ", "it is CPU"],
            false => [
                "computed by CUDA (PTX emulator posing as sm_80), NVRTC 12.9.86, ",
                "PTX for a driver of 12.9, kernels ",
                "it is CPU",
            ],
        };
        assert!(moved.status.success() && both.iter().all(|word| said.contains(word)), "{said}");
    }

    #[test]
    fn a_batch_that_does_not_fit_is_refused_with_one_that_does() {
        // The emulator's GPU has 16 GiB.
        if is_real() {
            return;
        }
        let Some(compiler) = compiler() else { return };
        let world = world_of(400, [600, 300, 300]);
        let shape = "data --layers 1 --heads 4 --d-model 32 --context 256 --out run --steps 1";
        let output = emulated(world.path(), &compiler, &format!("{shape} --windows-per-step 65536"));
        let said = text(&output);
        assert_eq!(output.status.code(), Some(UNAVAILABLE), "{said}");
        let fits = said.trim_end().rsplit("--windows-per-step ").next().unwrap().parse::<f64>().unwrap();
        // 16 GiB; each channel of a window is 257 tokens, 256 conditions and a row of scores.
        let per_window = 400.0 * (257.0 + 2.0 * 256.0 + 16.0);
        assert!(said.contains("training takes 20.") && said.contains("where 17.2 GB are free"), "{said}");
        assert!((0.95..1.0).contains(&(fits * per_window / 2f64.powi(34))), "{said}");
        assert!(told(&said) == 1 && !world.path().join("run").exists(), "{said}");

        // One more does not fit.
        let output = emulated(world.path(), &compiler, &format!("{shape} --windows-per-step {}", fits as usize + 1));
        assert!(text(&output).contains(&format!("--windows-per-step {fits}")), "{}", text(&output));
    }

    /// Whether a compiler is where every program finds it.
    fn is_installed() -> bool {
        ["/usr/local/cuda", "/usr/lib/x86_64-linux-gnu/libnvrtc.so.12"].iter().any(|path| Path::new(path).exists())
    }

    #[test]
    fn where_the_gpu_cannot_be_used_auto_says_so_and_is_the_cpu() {
        if is_installed() || has_driver() {
            return;
        }
        // A driver by its own name, which is the emulator, and no compiler anywhere.
        let world = world();
        let driver = std::env::current_exe().unwrap().with_file_name("libptx_emulator.so");
        std::os::unix::fs::symlink(driver, world.path().join("libcuda.so")).unwrap();
        let keep: Vec<_> = std::env::vars().filter(|(name, _)| name.starts_with("CARGO")).collect();
        let run = |device: &str| {
            let mut command = train(world.path(), &format!("{SMALL} --device {device} --out {device} --steps 1"));
            command.env_clear().envs(keep.clone()).env("PATH", world.path()).env("HOME", world.path());
            command.env("LD_LIBRARY_PATH", world.path()).output().unwrap()
        };
        let auto = run("auto");
        let said = text(&auto);
        assert!(auto.status.success() && said.contains("on CPU"), "{said}");
        let note = "The GPU is not used: there is no CUDA compiler (libnvrtc)";
        let notes: Vec<&str> = said.lines().filter(|line| line.contains("GPU")).collect();
        assert!(
            notes.len() == 1 && notes[0].contains(note) && notes[0].ends_with("The CPU computes instead."),
            "{said}"
        );
        let cuda = run("cuda");
        assert_eq!(cuda.status.code(), Some(UNAVAILABLE), "{}", text(&cuda));
        assert!(text(&cuda).contains("no CUDA compiler") && text(&cuda).lines().count() == 1, "{}", text(&cuda));
    }

    /// A folder in which a driver is by its own name, which is the emulator, and a toolkit whose compiler refuses one source; a
    /// command there, with the machine's compiler behind that one.
    struct Refusing {
        world: tempfile::TempDir,
        compiler: std::path::PathBuf,
    }

    impl Refusing {
        fn new() -> Option<Self> {
            let (compiler, world) = (compiler()?, world());
            let here = world.path();
            let driver = std::env::current_exe().unwrap().with_file_name("libptx_emulator.so");
            std::os::unix::fs::symlink(driver, here.join("libcuda.so")).unwrap();
            std::fs::create_dir_all(here.join("toolkit/lib64")).unwrap();
            let mut cc = Command::new("cc");
            cc.args(["-shared", "-fPIC", "-Wl,--no-as-needed", "-o"]).arg(here.join("toolkit/lib64/libnvrtc.so.12"));
            cc.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/refusing_nvrtc.c"));
            cc.arg(Toolkit::find().unwrap().nvrtc()).arg(format!("-Wl,-rpath,{}", compiler.display()));
            assert!(cc.status().unwrap().success());
            Some(Self { world, compiler })
        }

        /// A command, the compiler refusing this source.
        fn run(&self, refused: &str, line: &str) -> Output {
            let here = self.world.path();
            let libraries = std::env::join_paths([here, &self.compiler]).unwrap();
            let mut command = command(here, line);
            command.env("LD_LIBRARY_PATH", libraries).env("CUDA_HOME", here.join("toolkit"));
            command.env("NVRTC_REFUSES", refused).output().unwrap()
        }
    }

    #[test]
    fn a_compiler_that_compiles_nothing_hides_none_behind_it() {
        if has_driver() {
            return;
        }
        let Some(refusing) = Refusing::new() else { return };
        let whole = refusing.run("trial", &format!("train {SMALL} --device cuda --out run --steps 1"));
        assert!(whole.status.success() && text(&whole).contains("on CUDA (PTX emulator"), "{}", text(&whole));
        if is_installed() {
            return;
        }
        // Alone it is named.
        let here = refusing.world.path();
        let mut alone = command(here, &format!("train {SMALL} --device cuda --out alone --steps 1"));
        alone.env("LD_LIBRARY_PATH", here).env("CUDA_HOME", here.join("toolkit")).env("NVRTC_REFUSES", "trial");
        let output = alone.env("PATH", here).env("HOME", here).env_remove("VIRTUAL_ENV").output().unwrap();
        let said = text(&output);
        assert!(output.status.code() == Some(UNAVAILABLE) && said.lines().count() == 1, "{said}");
        assert!(
            said.contains("toolkit/lib64/libnvrtc.so.12 of version 1") && said.contains("does not serve"),
            "{said}"
        );
    }

    #[test]
    fn what_a_gpu_turns_out_to_lack_the_cpu_does_where_the_choice_is_ours() {
        if has_driver() {
            return;
        }
        let Some(refusing) = Refusing::new() else { return };
        let device = |output: &[u8]| {
            let facts: serde_json::Value = serde_json::from_slice(output).unwrap();
            facts["device"].as_str().unwrap().to_owned()
        };
        let fallen_back = |refused: &str, line: &str| {
            let output = refusing.run(refused, &format!("{line} --device auto"));
            let said = text(&output);
            let notes: Vec<&str> = said.lines().filter(|line| line.contains("GPU")).collect();
            assert!(output.status.success() && notes.len() == 1, "{said}");
            assert!(
                notes[0].contains(&format!("refuses {refused}")) && notes[0].ends_with("The CPU computes instead.")
            );
            if line.contains("--json") {
                assert!(device(&output.stdout).starts_with("CPU"));
            }
            said
        };
        // What has been compiled is kept, so each command comes further than the one before.
        let said = fallen_back("attention.cu", &format!("train {SMALL} --out auto --steps 2 --json"));
        assert!(said.contains("on CPU") && !said.contains("on CUDA"), "{said}");
        fallen_back("mlp.cu", "score auto data --json");
        // Of what is used the name is said, too.
        let used = refusing.run("", "score auto data --json --force --device cuda");
        assert!(device(&used.stdout).starts_with("CUDA (PTX emulator"), "{}", text(&used));
        fallen_back("decode.cu", "generate auto --data data --out made.npy --timesteps 20");
        let named = refusing.run("update.cu", &format!("train {SMALL} --out cuda --steps 2 --device cuda"));
        let said = text(&named);
        assert!(named.status.code() == Some(UNAVAILABLE) && told(&said) == 1, "{said}");
        assert!(said.contains("refuses update") && !refusing.world.path().join("cuda").exists(), "{said}");
        // It has compiled the trial, so another one is no help.
        assert!(said.contains("please report it") && !said.contains("nstall"), "{said}");
    }

    /// On a card kernels are timed one by one, by events; here the emulator's clock runs, which says nothing, but is no zero.
    #[test]
    fn kernels_are_timed_on_a_card() {
        if has_driver() {
            return;
        }
        let Some(machine) = Refusing::new() else { return };
        let shape = "--layers 2 --heads 4 --d-model 32 --context 16 --sequences 3 --repeats 1";
        let output = machine.run("", &format!("bench kernels {shape} --device cuda --json --html page.html"));
        assert!(output.status.success(), "{}", text(&output));
        let facts: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let launches = |kernel: &str| -> u64 {
            let rows = facts["kernels"].as_array().unwrap().iter().filter(|row| row["kernel"] == kernel);
            let launches = rows.map(|row| {
                assert!(row["seconds"].as_f64().unwrap() > 0.0, "{row}");
                row["launches"].as_u64().unwrap() * row["times"].as_u64().unwrap()
            });
            launches.sum()
        };
        // Two layers, one step; copies are made anew after each update.
        assert_eq!([launches("attention_forward"), launches("mlp_backward"), launches("adamw")], [2, 2, 1]);
        assert!(launches("working_matrix") > 2);
        let page = std::fs::read_to_string(machine.world.path().join("page.html")).unwrap();
        assert!(page.contains("<td class=\"words\">attention_forward</td><td>1</td>"), "{page}");
        assert!(page.contains("its time, and so their sum, holds the launch"), "{page}");
        // The captured step and generation run there, too.
        for what in ["train", "generate --hop 4"] {
            let output = machine.run("", &format!("bench {what} {shape} --device cuda"));
            let said = String::from_utf8(output.stdout.clone()).unwrap();
            assert!(output.status.success() && said.starts_with("CUDA (PTX emulator"), "{}", text(&output));
        }
    }

    #[test]
    fn without_a_compiler_there_is_one_clear_error() {
        if is_installed() {
            return;
        }
        let world = world();
        let mut command = train(world.path(), &format!("{SMALL} --device emulated --out run --steps 1"));
        let keep = std::env::vars().filter(|(name, _)| name.starts_with("CARGO"));
        command.env_clear().envs(keep).env("PATH", world.path()).env("HOME", world.path());
        let output = command.output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(UNAVAILABLE), "{said}");
        assert!(said.contains("no CUDA compiler") && said.contains("pip install"), "{said}");
        assert!(said.lines().count() == 1 && !world.path().join("run").exists(), "{said}");
    }
}
