//! Floating-point rate of the matrix products in the layers, per shape and thread count. It is computed from processor time, so that a
//! busy machine does not distort it.
//!
//! `cargo run --release -p flowmill-nn --example gemm_rate [bf16] [ROWS INNER COLUMNS]`; `FLOWMILL_TILE_PRODUCTS=no` leaves the tile
//! unit out, and `FLOWMILL_BF16_PRODUCTS=yes` uses the AVX-512 BF16 instruction on every processor that has it.

use flowmill_nn::Precision;
use flowmill_nn::kernels::gemm::{Matrix, multiply};
use flowmill_nn::random::RngKey;
use std::time::Instant;

fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn main() {
    let precision = if std::env::args().any(|argument| argument == "bf16") { Precision::Bf16 } else { Precision::Fp32 };
    // rows, inner, columns, and whether the left and right sides are transposed: forward, input gradient, weight gradient.
    let mut shapes = vec![
        (1600, 128, 128),
        (1600, 128, 512),
        (1600, 512, 128),
        (1600, 384, 128),
        (1600, 256, 1024),
        (800, 512, 2048),
        (480, 1024, 4096),
    ];
    let sizes: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    if let [rows, inner, columns] = sizes[..] {
        shapes = vec![(rows, inner, columns)];
    }
    for (rows, inner, columns) in shapes {
        let x = RngKey::new(1).normals(rows * inner);
        let w = RngKey::new(2).normals(columns * inner);
        let dy = RngKey::new(3).normals(rows * columns);
        let flops = 2.0 * (rows * inner * columns) as f64;
        let repeats = (4e10 / flops) as usize;
        let (x, w) = (Matrix::row_major(&x, rows, inner), Matrix::row_major(&w, columns, inner));
        let dy = Matrix::row_major(&dy, rows, columns);
        let kinds = [
            ("forward", x, w.transposed(), rows, columns),
            ("dx", dy, w, rows, inner),
            ("dw", dy.transposed(), x, columns, inner),
        ];
        print!("{rows:>5} x {inner:>4} x {columns:>4}:");
        let kinds = kinds.map(|(name, a, b, m, n)| (name, a.of(precision), b.of(precision), m, n));
        for (name, a, b, m, n) in kinds {
            let mut out = vec![0.0; m * n];
            let (start, before) = (Instant::now(), processor_seconds());
            for _ in 0..repeats {
                multiply(&mut out, n, a, b, false);
            }
            let wall = flops * repeats as f64 / start.elapsed().as_secs_f64() / 1e9;
            let core = flops * repeats as f64 / (processor_seconds() - before) / 1e9;
            print!("  {name} {wall:6.1} GFLOP/s ({core:5.1} per core)");
        }
        println!();
    }
}
