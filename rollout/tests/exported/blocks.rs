//! Sequences over a cache in blocks that they share, as the CUDA graph takes them.

use models::graph::cache::paged::BLOCK_SIZE;
use models::graph::{Cuda, CudaCache, Elements, Form};
use ort::memory::Allocator;
use ort::value::Tensor;
use tests::compare::assert_close;

use super::bound::{bind, values, want};
use super::engine_logits;
use super::model::Exported;
use super::setup::Sequence;

/// Tokens of a sequence from `from` to `to`, those before in the cache.
struct Piece<'a> {
    sequence: &'a Sequence,
    from: usize,
    to: usize,
    blocks: &'a [i32],
    /// Whether the tokens are written; else they lie there already.
    is_written: bool,
}

/// Keys and values of all layers: key 0, value 0, key 1, ..., f32 `[blocks, BLOCK_SIZE, K, D]`.
struct Blocks(Vec<Tensor<f32>>);

impl Blocks {
    fn new(model: &Exported, num_blocks: usize) -> Self {
        let text = &model.config.text;
        let shape = [num_blocks, BLOCK_SIZE, text.num_kv_heads, text.head_dim];
        let tensor = |_| {
            let mut tensor = Tensor::new(&Allocator::default(), shape).unwrap();
            tensor.extract_tensor_mut().1.fill(f32::NAN);
            tensor
        };
        Self((0..2 * text.num_layers).map(tensor).collect())
    }
}

/// One run of the decoder: the logits of every token of every piece.
fn run(model: &mut Exported, cache: &mut Blocks, pieces: &[Piece<'_>]) -> Vec<Vec<f32>> {
    let (hidden, vocab_size) = (model.config.text.hidden_size, model.config.text.vocab_size);
    let (mut ids, mut image_rows) = (Vec::new(), Vec::new());
    let mut positions: [Vec<i64>; 3] = Default::default();
    let mut embeds: Vec<f32> = Vec::new();
    let (mut ends, mut past, mut slots) = (vec![0_i32], Vec::new(), Vec::new());
    for piece in pieces {
        let sequence = piece.sequence;
        let columns = piece.from..piece.to;
        for column in columns.clone() {
            ids.push(i64::from(sequence.ids[column]));
            let image = sequence.image_columns.iter().position(|&at| at == column);
            image_rows.push(image.map_or(-1, |_| (embeds.len() / hidden) as i64));
            if let Some(image) = image {
                embeds.extend(&sequence.image_embeds[image * hidden..(image + 1) * hidden]);
            }
            let block = piece.blocks[column / BLOCK_SIZE] as usize;
            let slot = (block * BLOCK_SIZE + column % BLOCK_SIZE) as i32;
            slots.push(if piece.is_written { slot } else { -1 });
        }
        for (all, axis) in positions.iter_mut().zip(&sequence.positions) {
            all.extend(&axis[columns.clone()]);
        }
        past.push(piece.from as i32);
        ends.push(ids.len() as i32);
    }
    embeds.resize(embeds.len().max(hidden), f32::NAN); // one row at least
    let widest = pieces.iter().map(|piece| piece.blocks.len()).max().unwrap();
    let table = pieces.iter().flat_map(|piece| {
        let unused = std::iter::repeat(0);
        piece.blocks.iter().copied().chain(unused).take(widest)
    });
    let most = |of: fn(&Piece<'_>) -> usize| pieces.iter().map(of).max().unwrap() as i32;
    let bounds = vec![most(|piece| piece.to - piece.from), most(|piece| piece.to)];
    let (tokens, sequences) = (ids.len(), pieces.len());

    let mut io = model.decoder.binding();
    bind(&mut io, "input_ids", [1, tokens], ids);
    bind(&mut io, "position_ids", [3, 1, tokens], positions.concat());
    bind(&mut io, "image_rows", [1, tokens], image_rows);
    bind(
        &mut io,
        "image_embeds",
        [embeds.len() / hidden, hidden],
        embeds,
    );
    bind(
        &mut io,
        "logit_positions",
        [tokens],
        (0..tokens as i64).collect(),
    );
    bind(&mut io, "cumulative_lengths", [sequences + 1], ends.clone());
    bind(&mut io, "past_lengths", [sequences], past);
    bind(&mut io, "block_table", [sequences, widest], table.collect());
    bind(&mut io, "slot_mapping", [tokens], slots);
    bind(&mut io, "attention_metadata", [2], bounds);
    want(&mut io, "logits");
    for (index, tensor) in cache.0.iter_mut().enumerate() {
        let (kind, layer) = (["key", "value"][index % 2], index / 2);
        io.bind_input(format!("{kind}_cache.{layer}"), tensor)
            .unwrap();
        io.bind_output(format!("{kind}_cache_out.{layer}"), tensor)
            .unwrap();
    }
    let outputs = model.decoder.session.run_binding(&io).unwrap();
    let logits = values(&outputs["logits"]);
    let rows = ends
        .windows(2)
        .map(|pair| pair[0] as usize..pair[1] as usize);
    rows.map(|rows| logits[rows.start * vocab_size..rows.end * vocab_size].to_vec())
        .collect()
}

#[test]
fn samples_of_a_group_share_the_blocks_of_their_prompt() {
    let form = Form::Cuda(Cuda {
        elements: Elements::F32,
        cache: CudaCache::Blocks,
        candidates: None,
    });
    let Some(mut model) = Exported::new(form) else {
        return;
    };
    let prompts = model.fixtures.prompts().unwrap();
    let long = prompts
        .iter()
        .max_by_key(|prompt| prompt.input_ids.len())
        .unwrap();
    let short = prompts
        .iter()
        .min_by_key(|prompt| prompt.input_ids.len())
        .unwrap();
    let read = long.input_ids.len();
    let full = read / BLOCK_SIZE * BLOCK_SIZE;
    if full == 0 || full == read {
        let is_chosen = std::env::var_os("PARITY_FIXTURES").is_some();
        assert!(
            is_chosen,
            "no prompt of the shipped set fills a block and more"
        );
        println!("skipped: the longest prompt has {read} tokens, a block {BLOCK_SIZE}");
        return;
    }
    assert!(long.responses.len() > 1);

    let start = model.start(long);
    let [first, second] = [0, 1].map(|sample| start.with_response(&long.responses[sample]));
    let other = model.start(short).with_response(&short.responses[0]);
    let asked = [
        (long.index, long.responses[0].clone()),
        (long.index, long.responses[1].clone()),
        (short.index, short.responses[0].clone()),
    ];
    let engine = engine_logits(&asked);
    let vocab_size = model.config.text.vocab_size;
    let tolerance = model.forms_tolerance();
    let check = |what: &str, sample: usize, (from, to): (usize, usize), got: &[f32]| {
        let expected = &engine[sample][from * vocab_size..to * vocab_size];
        let worst = assert_close(what, got, expected, tolerance);
        println!("{what}: the engine's logits within {worst:.1e}");
    };
    let piece = |sequence, (from, to), blocks, is_written| Piece {
        sequence,
        from,
        to,
        blocks,
        is_written,
    };
    let last = |sequence: &Sequence| sequence.ids.len();
    let mut cache = Blocks::new(&model, 9);
    // The first sample reads the prompt; block 2 is what both have of it. A stranger lies between.
    let (mine, yours, strangers) = ([2, 5, 7], [2, 8, 0], [1, 4, 6]);

    let spans = [(0, read), (0, last(&other))];
    let pieces = [
        piece(&first, spans[0], &mine[..], true),
        piece(&other, spans[1], &strangers[..], true),
    ];
    let got = run(&mut model, &mut cache, &pieces);
    check("the prompt", 0, spans[0], &got[0]);
    check("another prompt in the same pass", 2, spans[1], &got[1]);

    // A step of the first sample, beside the second one: the rest of the prompt and its response, after shared blocks.
    let spans = [(read, read + 1), (full, last(&second))];
    let pieces = [
        piece(&first, spans[0], &mine[..], true),
        piece(&second, spans[1], &yours[..], true),
    ];
    let got = run(&mut model, &mut cache, &pieces);
    check("a step of the first sample", 0, spans[0], &got[0]);
    check(
        "the second sample after shared blocks",
        1,
        spans[1],
        &got[1],
    );

    // Several tokens after several, and a token that is in the cache already.
    let spans = [(read + 1, last(&first)), (last(&second) - 1, last(&second))];
    let pieces = [
        piece(&first, spans[0], &mine[..], true),
        piece(&second, spans[1], &yours[..], false),
    ];
    let got = run(&mut model, &mut cache, &pieces);
    check("the rest of the first sample", 0, spans[0], &got[0]);
    check("a token that is not written again", 1, spans[1], &got[1]);
}
