//! The guide's test: a kernel against a plain reference, through cudarc, without a GPU.

use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use ptx_emulator::settings::{Rounding, Settings};
use ptx_emulator::standin;
use ptx_emulator::toolkit::{REQUIRED_VARIABLE, Toolkit};

const SOURCE: &str = include_str!("kernels/guide_softmax.cu");

/// Softmax in double, from its definition.
fn reference(row: &[f32]) -> Vec<f64> {
    let weights: Vec<f64> = row.iter().map(|&x| f64::from(x).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

#[test]
fn softmax_agrees_with_its_definition() {
    // NVRTC needs no GPU. Where it is not installed, say so; where it must be, fail.
    let toolkit = match Toolkit::find() {
        Ok(toolkit) => toolkit,
        Err(reason) if std::env::var_os(REQUIRED_VARIABLE).is_none() => return eprintln!("skipped: {reason}"),
        Err(reason) => panic!("{reason}"),
    };
    toolkit.open_nvrtc().unwrap();
    let options = CompileOptions {
        name: Some("guide_softmax.cu".into()),
        options: vec!["--gpu-architecture=compute_80".into(), "-lineinfo".into()],
        include_paths: toolkit.includes().iter().map(|path| path.display().to_string()).collect(),
        ..Default::default()
    };
    let ptx = compile_ptx_with_opts(SOURCE, options).unwrap();
    toolkit.assemble(&ptx.to_src(), "sm_80").unwrap();

    for rounding in [Rounding::Exact, Rounding::Adversarial] {
        // From here on, this process's CUDA driver is the stand-in.
        let standin = standin::open(&Settings { rounding, ..Settings::default() }).unwrap();
        let stream = CudaContext::new(0).unwrap().default_stream();
        let module = stream.context().load_module(ptx.clone()).unwrap();
        let softmax = module.load_function("softmax").unwrap();

        for columns in [1usize, 31, 32, 33, 1000] {
            let rows = 3;
            let x: Vec<f32> = (0..rows * columns).map(|i| (i * 37 % 101) as f32 / 20.0 - 2.5).collect();
            let of_x = stream.clone_htod(&x).unwrap();
            // SAFETY: a number of any bits is a float; that the kernel writes them all is what is tested.
            let mut of_y = unsafe { stream.alloc::<f32>(x.len()) }.unwrap();
            let config = LaunchConfig { grid_dim: (rows as u32, 1, 1), block_dim: (128, 1, 1), shared_mem_bytes: 0 };
            let number = columns as i32;
            // SAFETY: these are the arguments that the kernel declares.
            unsafe { stream.launch_builder(&softmax).arg(&number).arg(&of_x).arg(&mut of_y).launch(config) }.unwrap();
            let y = stream.clone_dtoh(&of_y).unwrap();

            // The argument of an exponential is rounded once, at most 5 in size, and so is each of some 20 sums.
            let bound = |want: f64| want * 40.0 * f64::powi(2.0, -24);
            let want: Vec<f64> = x.chunks(columns).flat_map(reference).collect();
            for (i, (&y, &want)) in y.iter().zip(&want).enumerate() {
                assert!((f64::from(y) - want).abs() <= bound(want), "{columns} columns, y[{i}] = {y}, not {want}");
            }
        }
        // Every launch was checked and counted. What was wrong would have been the driver's error above.
        let report = standin.take_reports().pop().unwrap();
        assert!(report.findings.is_empty());
        println!("{}", serde_json::to_string_pretty(&report.counters).unwrap());
    }
}
