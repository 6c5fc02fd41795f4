// TV-L1 of many pairs of frames of one size, coarse to fine, by the rules of OpenCV CUDA.
//
// The formulas are those of flowprep/flow/reference_steps.py, whose docstrings name their sources.
// `prepare` makes the pyramids of all frames; `solve` brings every pair to its flow; `deliver`
// writes it out. All of it is written per warp: a warp takes one task after the other and never
// waits for another warp while it has one, so any number of warps will do, and the order in which
// they work changes no bit.
//
// Two columns of an image lie in one float4 of a quad plane: the lanes of a warp hold 64 columns.

// --- what the host tells: engine.py has the same as NumPy dtypes ---

struct Level {
    int height, width;
    int quads;       // float4s in a row of a quad plane
    int strips;      // tasks of an iteration step side by side
    int blocks;      // tasks of a linearisation side by side
    int bands;       // bands of BAND_ROWS rows
    long long pixels_before;  // in the finer levels of a frame
    double limit;             // epsilon^2 * pixels: the error at which a warp ends
    float step_y, step_x;     // px of the next coarser level per px of this one
};

struct Job {
    const unsigned char *frames;  // [frames, H, W]
    float *images;                // [frames, pixels of all levels]
    float4 *taps;                 // the same of {image, d/dx, d/dy, 0}
    float4 *states;               // [pairs, 2 sides, 3 fields, quads of the full size]
    float4 *terms;                // [pairs, 2 fields, quads of the full size]
    struct Control *controls;     // [pairs]
    int *available;               // [pairs]: tasks of the step that nobody has taken
    int *left;                    // [pairs]: tasks of the step that have not ended
    int *counts;                  // [pairs, levels, warps]: iterations
    double *errors;               // [pairs, strips * bands of the full size]
    const int *first_frames;      // [pairs]: the second frame is the one after it
    int *finished;                // [1]: pairs
    void *out;                    // float32 [pairs, 2, H, W] or codes [pairs, 2H, W]
    double *stats;                // [pairs, bands, 3]: sum of lengths, largest square, beyond bound
    const Level *levels;
    long long frame_pixels;       // in all levels
    long long slice_ns;           // a launch takes no new task after this long
    int n_workers;
    int n_frames, n_pairs, n_levels, n_warps, n_iterations;
    int state_quads;              // quads of the full size
    int errors_per_pair;
    float l_t, theta, taut;       // lambda * theta, theta, tau / theta
    float shrink;                 // px of a level per px of the next coarser one
    float flow_scale;             // flow of a level per flow of the next coarser one
    int code_bytes;               // 4: float32 flow, else codes of 1 or 2 bytes
    float codes_per_px, zero_code, lowest_code, highest_code, bound_px;
};

enum { LINEARISE, ITERATE, DONE, DIVERGED };

struct Control {
    int phase, level, warp;  // what this step does
    int side;                // which half of `states` holds u and p
    int n_done, n_now;       // iterations of this warp before and in this step
    int until_check;         // iterations from the step's start to the next look at the error
    int task_rows;           // rows of a task, in whole bands
};

static_assert(sizeof(Level) == LEVEL_BYTES, "layout.py has another struct");
static_assert(sizeof(Job) == JOB_BYTES, "layout.py has another struct");
static_assert(sizeof(Control) == CONTROL_BYTES, "layout.py has another struct");
static_assert(COLUMNS == 64 && MAX_STEPS == 8, "see a lane's columns, and sweep_next_row");

#define HALO MAX_STEPS
#define STRIDE (COLUMNS - 2 * HALO)  // from strip to strip
// BAND_ROWS: the error is summed band by band, however a step is cut into tasks

// --- pyramids ---

template <typename T>
FN F between(F a, F b, T t) {
    return mad(t, b - a, a);
}

// Image `level` of every frame, from the frame itself or from the level before.
KERNEL(make_level)(const Job *at, int level) {
    const Job &job = *at;
    const Level to = job.levels[level], from = job.levels[level > 0 ? level - 1 : 0];
    for (int task = WORKER; task < job.n_frames * to.height; task += N_WORKERS) {
        const int frame = task / to.height, y = task % to.height;
        const unsigned char *bytes = job.frames + (long long)frame * to.height * to.width;
        const float *source = job.images + frame * job.frame_pixels + from.pixels_before;
        float *image = job.images + frame * job.frame_pixels + to.pixels_before;
        const float at_y = (float)y * job.shrink;
        const int low_y = smaller((int)at_y, from.height - 1);
        const int high_y = smaller(low_y + 1, from.height - 1);
        for (int start = 0; start < to.width; start += 32) {
            const I x = start + lane(), index = smaller(x, to.width - 1);
            F value;
            if (level == 0) {
                value = load(bytes, y * to.width + index);
            } else {
                const F at_x = to_float(index) * job.shrink;
                const I low_x = smaller(to_int(at_x), from.width - 1);
                const I high_x = smaller(low_x + 1, from.width - 1);
                const F t_x = at_x - to_float(low_x);
                F rows[2];
                UNROLL
                for (int i = 0; i < 2; ++i) {
                    const int before = (i ? high_y : low_y) * from.width;
                    rows[i] = between(load(source, before + low_x), load(source, before + high_x), t_x);
                }
                value = between(rows[0], rows[1], at_y - (float)low_y);
            }
            store(x < to.width, image, y * to.width + x, value);
        }
    }
}

// {image, d/dx, d/dy, 0} of every frame and level: central differences, the edge repeated.
KERNEL(make_taps)(const Job *at) {
    const Job &job = *at;
    for (int level = 0; level < job.n_levels; ++level) {
        const Level here = job.levels[level];
        for (int task = WORKER; task < job.n_frames * here.height; task += N_WORKERS) {
            const int frame = task / here.height, y = task % here.height;
            const long long first = frame * job.frame_pixels + here.pixels_before;
            const float *image = job.images + first;
            const int above = larger(y - 1, 0) * here.width;
            const int below = smaller(y + 1, here.height - 1) * here.width;
            for (int start = 0; start < here.width; start += 32) {
                const I x = start + lane(), index = smaller(x, here.width - 1);
                const I row = I() + y * here.width;
                const F left = load(image, row + larger(index - 1, 0));
                const F right = load(image, row + smaller(index + 1, here.width - 1));
                const F up = load(image, above + index), down = load(image, below + index);
                const F4 tap = {load(image, row + index), (right - left) * 0.5f, (down - up) * 0.5f,
                                F()};
                store(x < here.width, job.taps + first, row + x, tap);
            }
        }
    }
}

// --- one pair's memory ---

struct Pair {
    Control *control;
    const float *image_0;   // the level's first frame
    const float4 *taps_1;   // and second
    float4 *states;         // [2 sides, 3]: {u, u, v, v}, {p11, p11, p12, p12}, {p21, p21, p22, p22}
    float4 *terms;          // [2]: {gx, gx, gy, gy}, {rho_c, rho_c, -1/|g|^2, ..} (EXACT: |g|^2)
    double *errors;
};

FN Pair open_pair(const Job &job, int pair, const Level &level) {
    Pair out;
    const long long frame = job.first_frames[pair];
    out.control = job.controls + pair;
    out.image_0 = job.images + frame * job.frame_pixels + level.pixels_before;
    out.taps_1 = job.taps + (frame + 1) * job.frame_pixels + level.pixels_before;
    out.states = job.states + 6LL * pair * job.state_quads;
    out.terms = job.terms + 2LL * pair * job.state_quads;
    out.errors = job.errors + (long long)pair * job.errors_per_pair;
    return out;
}

// A side's planes, one after the other as the level's size has it.
FN float4 *open_state(const Job &job, const Pair &pair, int side) {
    return pair.states + 3LL * side * job.state_quads;
}

// --- linearise: warp the second frame, and what is constant until the next warp ---

// Catmull-Rom (Keys, a = -1/2) at t beyond the second of four taps.
FN void cubic_weights(F t, F weights[4]) {
    const F t2 = t * t, t3 = t2 * t;
    weights[0] = mad(-0.5f, t + t3, t2);
    weights[1] = mad(1.5f, t3, mad(-2.5f, t2, 1.0f));
    weights[2] = mad(-1.5f, t3, mad(2.0f, t2, t * 0.5f));
    weights[3] = (t3 - t2) * 0.5f;
}

// Positions beyond the edge all see the same repeated pixel, so none lies far outside.
FN F within_reach(F position, int length) {
    return smaller(larger(position, -3.0f), (float)(length + 2));
}

struct Warped {
    F image, gx, gy;
};

FN Warped sample(const float4 *taps, const Level &level, F at_x, F at_y) {
    F weight_x[4], weight_y[4];
    I index_x[4];
    at_x = within_reach(at_x, level.width);
    at_y = within_reach(at_y, level.height);
    const F floor_x = floor_of(at_x), floor_y = floor_of(at_y);
    cubic_weights(at_x - floor_x, weight_x);
    cubic_weights(at_y - floor_y, weight_y);
    const I base_x = to_int(floor_x) - 1, base_y = to_int(floor_y) - 1;
    UNROLL
    for (int i = 0; i < 4; ++i) index_x[i] = larger(smaller(base_x + i, level.width - 1), 0);
    Warped sum = {F(), F(), F()};
    UNROLL
    for (int j = 0; j < 4; ++j) {
        const I row = larger(smaller(base_y + j, level.height - 1), 0) * level.width;
        Warped across = {F(), F(), F()};
        UNROLL
        for (int i = 0; i < 4; ++i) {
            const F4 tap = load(taps, row + index_x[i]);
            across.image = mad(weight_x[i], tap.x, across.image);
            across.gx = mad(weight_x[i], tap.y, across.gx);
            across.gy = mad(weight_x[i], tap.z, across.gy);
        }
        sum.image = mad(weight_y[j], across.image, sum.image);
        sum.gx = mad(weight_y[j], across.gx, sum.gx);
        sum.gy = mad(weight_y[j], across.gy, sum.gy);
    }
    return sum;
}

// u or v (component 0 or 1) of the next coarser level, between its pixels, in px of this level.
FN F coarse_flow(const Job &job, const float4 *flow, const Level &coarse, const Level &level, I x,
                 int y, int component) {
    const float *numbers = (const float *)flow + 2 * component;
    const float at_y = (float)y * level.step_y;
    const F at_x = to_float(x) * level.step_x;
    const int low_y = smaller((int)at_y, coarse.height - 1);
    const int high_y = smaller(low_y + 1, coarse.height - 1);
    const I low_x = smaller(to_int(at_x), coarse.width - 1);
    const I high_x = smaller(low_x + 1, coarse.width - 1);
    const I low_index = 4 * (low_x >> 1) + (low_x & 1), high_index = 4 * (high_x >> 1) + (high_x & 1);
    const F t_x = at_x - to_float(low_x);
    F rows[2];
    UNROLL
    for (int i = 0; i < 2; ++i) {
        const int before = 4 * (i ? high_y : low_y) * coarse.quads;
        rows[i] = between(load(numbers, before + low_index), load(numbers, before + high_index), t_x);
    }
    return between(rows[0], rows[1], at_y - (float)low_y) * job.flow_scale;
}

// The flow that a level starts from: zero at the coarsest.
FN F4 first_flow(const Job &job, const Pair &pair, int number, I x_0, I x_1, int y) {
    if (number + 1 == job.n_levels) return F4{F(), F(), F(), F()};
    const Level level = job.levels[number], coarse = job.levels[number + 1];
    const float4 *flow = open_state(job, pair, pair.control->side);
    return F4{coarse_flow(job, flow, coarse, level, x_0, y, 0),
              coarse_flow(job, flow, coarse, level, x_1, y, 0),
              coarse_flow(job, flow, coarse, level, x_0, y, 1),
              coarse_flow(job, flow, coarse, level, x_1, y, 1)};
}

FN F slot_of_square(F square) {
#if EXACT
    return square;
#else
    return divide(-1.0f, larger(square, 1e-30f));
#endif
}

FN void linearise(const Job &job, const Level &level, const Pair &pair, int task) {
    const Control now = *pair.control;
    const int start = task / level.blocks * now.task_rows;
    const int stop = smaller(start + now.task_rows, level.height);
    const I q = task % level.blocks * 32 + lane(), column = smaller(q, level.quads - 1);
    const I x_0 = 2 * column, x_1 = smaller(x_0 + 1, level.width - 1);
    const B inside = q < level.quads;
    const float4 *from = open_state(job, pair, now.side);
    float4 *to = open_state(job, pair, 1 - now.side);
    const int plane = level.height * level.quads;
    for (int y = start; y < stop; ++y) {
        const I index = y * level.quads + column;
        F4 flow;
        if (now.warp == 0) {
            flow = first_flow(job, pair, now.level, x_0, x_1, y);
            store(inside, to, index, flow);
            store(inside, to + plane, index, F4{F(), F(), F(), F()});
            store(inside, to + 2 * plane, index, F4{F(), F(), F(), F()});
        } else {
            flow = load_once(from, index);
        }
        const F v_y = F() + (float)y;
        const Warped a = sample(pair.taps_1, level, to_float(x_0) + flow.x, v_y + flow.z);
        const Warped b = sample(pair.taps_1, level, to_float(x_1) + flow.y, v_y + flow.w);
        const F first_a = load(pair.image_0, y * level.width + x_0);
        const F first_b = load(pair.image_0, y * level.width + x_1);
        const F rho_a = mad(-a.gx, flow.x, mad(-a.gy, flow.z, a.image - first_a));
        const F rho_b = mad(-b.gx, flow.y, mad(-b.gy, flow.w, b.image - first_b));
        const F square_a = mad(a.gx, a.gx, a.gy * a.gy), square_b = mad(b.gx, b.gx, b.gy * b.gy);
        store(inside, pair.terms, index, F4{a.gx, b.gx, a.gy, b.gy});
        store(inside, pair.terms + plane, index,
              F4{rho_a, rho_b, slot_of_square(square_a), slot_of_square(square_b)});
    }
}

// --- iterate: up to MAX_STEPS iterations in one pass down the rows of a strip ---
//
// Iteration k works one row behind iteration k - 1, on the row that this has just handed on. What
// lies outside the strip is unknown, so its outermost columns, and the outermost rows of a segment,
// are wrong by one more pixel after each iteration: HALO columns are not written.

struct Row {
    F u[2], v[2], p11[2], p12[2], p21[2], p22[2];  // of the lane's two columns
};

FN Row load_row(const float4 *state, int plane, I index) {
    const F4 a = load_once(state, index), b = load_once(state + plane, index),
             c = load_once(state + 2 * plane, index);
    return Row{{a.x, a.y}, {a.z, a.w}, {b.x, b.y}, {b.z, b.w}, {c.x, c.y}, {c.z, c.w}};
}

FN void store_row(B which, float4 *state, int plane, I index, const Row &row) {
    store(which, state, index, F4{row.u[0], row.u[1], row.v[0], row.v[1]});
    store(which, state + plane, index, F4{row.p11[0], row.p11[1], row.p12[0], row.p12[1]});
    store(which, state + 2 * plane, index, F4{row.p21[0], row.p21[1], row.p22[0], row.p22[1]});
}

// Where the lane's columns lie.
struct Place {
    B is_first;       // column 0 is at x = 0
    B is_last[2];     // x = width - 1
    B counts[2];      // written by this strip
};

struct Weights {
    float l_t, theta, taut;
};

// (v - u) / g: how far along g the data term moves the flow, at most l_t.
FN F along_gradient(F rho, F slot, float l_t) {
#if EXACT
    const F bound = slot * l_t;
    const F newton = select(slot > 1.1920929e-7f, divide(-rho, slot), F());
    return select(rho < -bound, l_t, select(rho > bound, -l_t, newton));
#else
    return smaller(larger(rho * slot, -l_t), l_t);
#endif
}

// p of one flow component: (p + taut g) / (1 + taut |g|), for both components with one inverse.
FN void update_dual(Row &row, int j, F ux, F uy, F vx, F vy, float taut) {
    const F square_u = mad(ux, ux, uy * uy), square_v = mad(vx, vx, vy * vy);
    const F p11 = mad(taut, ux, row.p11[j]), p12 = mad(taut, uy, row.p12[j]);
    const F p21 = mad(taut, vx, row.p21[j]), p22 = mad(taut, vy, row.p22[j]);
#if EXACT
    const F norm_u = mad(taut, root(square_u), 1.0f);
    const F norm_v = mad(taut, root(square_v), 1.0f);
    row.p11[j] = divide(p11, norm_u), row.p12[j] = divide(p12, norm_u);
    row.p21[j] = divide(p21, norm_v), row.p22[j] = divide(p22, norm_v);
#else
    const F norm_u = mad(taut, quick_root(square_u), 1.0f);
    const F norm_v = mad(taut, quick_root(square_v), 1.0f);
    const F inverse = quick_inverse(norm_u * norm_v);
    const F by_u = inverse * norm_v, by_v = inverse * norm_u;
    row.p11[j] = p11 * by_u, row.p12[j] = p12 * by_u;
    row.p21[j] = p21 * by_v, row.p22[j] = p22 * by_v;
#endif
}

// One iteration. `row` holds row y as the iteration before left it, `above` the flow of row y - 1
// after this iteration and p before it; afterwards `row` is row y - 1 and `above` is for row y + 1.
// `is_below` says that y is the row after the last, where nothing is.
LARGE_FN void iterate_row(const Weights &weights, Row &row, Row &above, const F4 &gradient,
                    const F4 &rest, const Place &place, bool is_below) {
    const F gx[2] = {gradient.x, gradient.y}, gy[2] = {gradient.z, gradient.w};
    const F rho_c[2] = {rest.x, rest.y}, slot[2] = {rest.z, rest.w};
    const F p11_left[2] = {select(place.is_first, F(), from_left(row.p11[1])), row.p11[0]};
    const F p21_left[2] = {select(place.is_first, F(), from_left(row.p21[1])), row.p21[0]};
    const F u_right[2] = {above.u[1], from_right(above.u[0])};
    const F v_right[2] = {above.v[1], from_right(above.v[0])};
    Row done = above;
    UNROLL
    for (int j = 0; j < 2; ++j) {
        const F divergence_u = (row.p11[j] - p11_left[j]) + (row.p12[j] - above.p12[j]);
        const F divergence_v = (row.p21[j] - p21_left[j]) + (row.p22[j] - above.p22[j]);
        const F rho = mad(gx[j], row.u[j], mad(gy[j], row.v[j], rho_c[j]));
        const F factor = along_gradient(rho, slot[j], weights.l_t);
        const F u = mad(factor, gx[j], mad(weights.theta, divergence_u, row.u[j]));
        const F v = mad(factor, gy[j], mad(weights.theta, divergence_v, row.v[j]));
        update_dual(done, j, select(place.is_last[j], F(), u_right[j] - above.u[j]),
                    is_below ? F() : u - above.u[j],
                    select(place.is_last[j], F(), v_right[j] - above.v[j]),
                    is_below ? F() : v - above.v[j], weights.taut);
        row.u[j] = u, row.v[j] = v;
    }
    above = row;
    row = done;
}

// The squared change of the lane's columns from one iteration to the next.
FN F squared_change(const Row &before, const Row &after, const Place &place) {
    F sum = F();
    UNROLL
    for (int j = 0; j < 2; ++j) {
        const F du = after.u[j] - before.u[j], dv = after.v[j] - before.v[j];
        sum = sum + select(place.counts[j], mad(du, du, dv * dv), F());
    }
    return sum;
}

// What a task of iterations works on.
struct Sweep {
    const float4 *from, *terms;
    float4 *to;
    int plane;  // float4s of one
    Weights weights;
    Place place;
    B inside;
    I column;
    int n, height, quads;
    int first_row, start, stop;  // of what is read; of what is written
    bool sums;
    double *errors;  // of the strip; bands are `strips` apart
    int strips;
};

// Asks for row y + 1, so that it is there when it is needed. `next` holds row y, then row y + 1;
// what it holds after the last row is not used.
FN Row take_row(const Sweep &sweep, int y, Row &next) {
    const I index = smaller(y + 1, sweep.height - 1) * sweep.quads + sweep.column;
    const Row row = next;
    next = load_row(sweep.from, sweep.plane, index);
    prefetch(sweep.terms, index);
    prefetch(sweep.terms + sweep.plane, index);
    return row;
}

// Takes every iteration one row further, and writes row y - n. STEPS is n where all iterations have
// a row to work on; 0 is for any n, for the first rows, where the later iterations have nothing to
// do yet, and for those after the last.
template <int STEPS>
FN void sweep_row(const Sweep &sweep, int y, Row &next, Row *above, F &error) {
    const bool is_steady = STEPS > 0;
    const int n = is_steady ? STEPS : sweep.n;
    Row row = take_row(sweep, y, next);
    UNROLL
    for (int k = 0; k < (is_steady ? STEPS : MAX_STEPS); ++k) {
        const int here = y - k;
        if (!is_steady && (k == n || here < sweep.first_row)) break;
        if (!is_steady && here > sweep.height) continue;
        const int term_row = is_steady ? here : smaller(here, sweep.height - 1);
        const I index = term_row * sweep.quads + sweep.column;
        const Row before = row;
        iterate_row(sweep.weights, row, above[k], load(sweep.terms, index),
                    load(sweep.terms + sweep.plane, index), sweep.place,
                    !is_steady && here == sweep.height);
        if (k + 1 == n && sweep.sums && here >= sweep.start && here < sweep.stop)
            error = error + squared_change(before, above[k], sweep.place);
    }
    const int finished = y - n;
    if (finished >= sweep.start)
        store_row(sweep.inside, sweep.to, sweep.plane, finished * sweep.quads + sweep.column, row);
}

// When the last iteration has reached the end of a band, or of the task, its error is known.
FN void end_band(const Sweep &sweep, int y, F &error) {
    const int summed = y - sweep.n + 1;  // the row that the last iteration has just reached
    const bool ends_band = summed % BAND_ROWS == BAND_ROWS - 1 || summed + 1 == sweep.stop;
    if (sweep.sums && ends_band && summed >= sweep.start && summed < sweep.stop) {
        set(sweep.errors + summed / BAND_ROWS * sweep.strips, sum_of_lanes(error));
        error = F();
    }
}

template <int STEPS>
LARGE_FN void sweep_rows(const Sweep &sweep, int &y, int end, Row &next, Row *above, F &error) {
    ROLLED
    for (; y < end; ++y) {
        sweep_row<STEPS>(sweep, y, next, above, error);
        end_band(sweep, y, error);
    }
}

// A loop for each number of iterations, so that what they hold stays in the same registers. Checks
// fall on even counts; odd ones are rare, and left to the general way.
FN void sweep_steady_rows(const Sweep &sweep, int &y, int end, Row &next, Row *above, F &error) {
    switch (sweep.n) {
        case MAX_STEPS: return sweep_rows<MAX_STEPS>(sweep, y, end, next, above, error);
        case 6: return sweep_rows<6>(sweep, y, end, next, above, error);
        case 4: return sweep_rows<4>(sweep, y, end, next, above, error);
        case 2: return sweep_rows<2>(sweep, y, end, next, above, error);
    }
}

// The error is looked at when a check is due, and at the end.
FN bool ends_at_check(const Job &job, const Control &now) {
    return now.n_now == now.until_check || now.n_done + now.n_now == job.n_iterations;
}

FN Sweep open_sweep(const Job &job, const Level &level, const Pair &pair, int task) {
    const Control now = *pair.control;
    const int strip = task % level.strips, first_column = strip * STRIDE;
    const int counted_from = first_column + (strip ? HALO : 0);
    const int counted_to =
        strip + 1 == level.strips ? level.width : first_column + COLUMNS - HALO;
    const I q = first_column / 2 + lane(), x = 2 * q;
    const B inside = (x >= counted_from) & (x < counted_to);
    const B second = (x >= counted_from) & (x + 1 < counted_to);
    Sweep out;
    out.from = open_state(job, pair, now.side), out.to = open_state(job, pair, 1 - now.side);
    out.terms = pair.terms;
    out.plane = level.height * level.quads;
    out.weights = Weights{job.l_t, job.theta, job.taut};
    out.place = Place{x == 0, {x == level.width - 1, x + 1 == level.width - 1}, {inside, second}};
    out.inside = inside;
    out.column = smaller(q, level.quads - 1);
    out.n = now.n_now, out.height = level.height, out.quads = level.quads;
    out.start = task / level.strips * now.task_rows;
    out.stop = smaller(out.start + now.task_rows, level.height);
    out.first_row = larger(out.start - out.n, 0);
    out.sums = ends_at_check(job, now);
    out.errors = pair.errors + strip, out.strips = level.strips;
    return out;
}

FN void iterate(const Job &job, const Level &level, const Pair &pair, int task) {
    const Sweep sweep = open_sweep(job, level, pair, task);
    Row next = load_row(sweep.from, sweep.plane, sweep.first_row * sweep.quads + sweep.column);
    Row above[MAX_STEPS] = {};
    F error = F();
    const int end = sweep.stop + sweep.n;
    int y = sweep.first_row;
    ROLLED
    for (int part = 0; part < 2; ++part) {  // before and after the steady rows
        const int until = part == 0 ? smaller(sweep.first_row + sweep.n - 1, end) : end;
        sweep_rows<0>(sweep, y, until, next, above, error);
        if (part == 0)
            sweep_steady_rows(sweep, y, smaller(end, sweep.height), next, above, error);
    }
}

// --- what comes after a step ---

// The sum over strips and bands: each lane takes every 32nd, then the lanes are added up.
FN double total_error(const Pair &pair, const Level &level) {
    const int n = level.strips * level.bands;
    D sum = D();
    for (int start = 0; start < n; start += 32) sum = sum + load(pair.errors, start + lane(), n);
    return sum_of_lanes(sum);
}

// Iterations from one check to the next: OpenCV CUDA takes the error to fall by `limit` in each,
// and looks at even counts only, once the error less a `limit` per iteration is under it.
FN int iterations_to_check(double error, double limit, int n_iterations) {
    const double n_pairs = error / (2 * limit);
    return n_pairs < n_iterations ? 2 * ((int)n_pairs + 1) : n_iterations;
}

FN void plan_iterations(const Job &job, Control &now) {
    now.n_now = smaller(MAX_STEPS, smaller(now.until_check, job.n_iterations - now.n_done));
    now.phase = ITERATE;
}

FN void plan_next_warp(const Job &job, Control &now) {
    now.phase = LINEARISE;
    if (++now.warp < job.n_warps) return;
    now.warp = 0;
    if (--now.level < 0) now.phase = DONE;
}

FN void plan_after_iterations(const Job &job, const Pair &pair, int number, Control &now) {
    const Level level = job.levels[now.level];
    const bool checks = ends_at_check(job, now);
    now.side = 1 - now.side;
    now.n_done += now.n_now;
    now.until_check -= now.n_now;
    const double error = checks ? total_error(pair, level) : level.limit + 1;
    if (!(error <= 1e300)) {
        now.phase = DIVERGED;
    } else if (error <= level.limit || now.n_done == job.n_iterations) {
        set(job.counts + ((long long)number * job.n_levels + now.level) * job.n_warps + now.warp,
            now.n_done);
        plan_next_warp(job, now);
    } else {
        if (checks) now.until_check = iterations_to_check(error, level.limit, job.n_iterations);
        plan_iterations(job, now);
    }
}

FN void plan_after_linearising(const Job &job, Control &now) {
    if (now.warp == 0) now.side = 1 - now.side;
    now.n_done = 0;
    now.until_check = job.levels[now.level].limit > 0 ? 2 : job.n_iterations;
    plan_iterations(job, now);
}

// Cuts the step into as many tasks as keep all workers busy: more, when few pairs are left.
FN int plan_tasks(const Job &job, Control &now) {
    const Level level = job.levels[now.level];
    const int across = now.phase == ITERATE ? level.strips : level.blocks;
    const int n_unfinished = larger(job.n_pairs - peek(job.finished), 1);
    const int wanted = larger(job.n_workers / (n_unfinished * across), 1);
    const int bands = (level.bands + smaller(wanted, level.bands) - 1) / smaller(wanted, level.bands);
    now.task_rows = bands * BAND_ROWS;
    return across * ((level.bands + bands - 1) / bands);
}

// By the warp that ended the pair's step: hand out the next.
FN void advance(const Job &job, const Pair &pair, int number) {
    Control now = *pair.control;
    if (now.phase == LINEARISE)
        plan_after_linearising(job, now);
    else
        plan_after_iterations(job, pair, number, now);
    const bool has_ended = now.phase == DONE || now.phase == DIVERGED;
    const int n_tasks = has_ended ? 0 : plan_tasks(job, now);
    set(pair.control, now);
    set(job.left + number, n_tasks);
    if (has_ended)
        add_one(job.finished);
    else
        publish(job.available + number, n_tasks);
}

FN void work(const Job &job, int number, int task) {
    const Control now = job.controls[number];
    const Level level = job.levels[now.level];
    const Pair pair = open_pair(job, number, level);
    if (now.phase == LINEARISE)
        linearise(job, level, pair, task);
    else
        iterate(job, level, pair, task);
    if (leave(job.left + number)) advance(job, pair, number);
}

// Work on the pairs `first` to `first + 31`; false when none of them has a task. Warps look at them
// from different ones on, so that they do not all ask for the same task.
FN bool work_near(const Job &job, int first) {
    const int turn = WORKER % 32;
    const unsigned has_task = positive(job.available, first + lane(), job.n_pairs);
    for (unsigned open = turned(has_task, turn); open; open &= open - 1) {
        const int number = first + (lowest_bit(open) + turn) % 32;
        const int task = take(job.available + number);
        if (task < 1) continue;
        work(job, number, task - 1);
        return true;
    }
    return false;
}

// Every pair at the start of its coarsest level.
KERNEL(begin)(const Job *at) {
    const Job &job = *at;
    if (WORKER == 0) set(job.finished, 0);
    for (int number = WORKER; number < job.n_pairs; number += N_WORKERS) {
        Control now = {};
        now.phase = LINEARISE, now.level = job.n_levels - 1;
        now.task_rows = BAND_ROWS;
        const int n_tasks = job.levels[now.level].blocks * job.levels[now.level].bands;
        set(job.controls + number, now);
        set(job.left + number, n_tasks);
        set(job.available + number, n_tasks);
    }
}

// Every pair as far as `slice_ns` allows. A warp stays with the pairs it has last worked on.
KERNEL(solve)(const Job *at) {
    const Job &job = *at;
    const long long end_ns = clock_ns() + job.slice_ns;
    const int n_groups = (job.n_pairs + 31) / 32;
    int group = (int)((long long)WORKER * n_groups / N_WORKERS) % n_groups, n_idle = 0;
    while (peek_once(job.finished) < job.n_pairs && clock_ns() < end_ns) {
        if (work_near(job, 32 * group)) {
            n_idle = 0;
        } else {
            group = (group + 1) % n_groups;
            if (++n_idle % n_groups == 0) doze();
        }
    }
}

// --- out ---

FN void put_out(const Job &job, B which, long long before, I index, F value) {
    const F code = smaller(larger(nearest(value * job.codes_per_px + job.zero_code),
                                  job.lowest_code), job.highest_code);
    if (job.code_bytes == 4)
        store(which, (float *)job.out + before, index, value);
    else if (job.code_bytes == 1)
        store(which, (unsigned char *)job.out + before, index, code);
    else
        store(which, (unsigned short *)job.out + before, index, code);
}

// Flow or codes of every pair, and what the json of a sample says of them.
KERNEL(deliver)(const Job *at) {
    const Job &job = *at;
    const Level level = job.levels[0];
    const long long size = (long long)level.height * level.width;
    for (int task = WORKER; task < job.n_pairs * level.bands; task += N_WORKERS) {
        const int number = task / level.bands, band = task % level.bands;
        const Pair pair = open_pair(job, number, level);
        const float *flow = (const float *)open_state(job, pair, pair.control->side);
        const int stop = smaller((band + 1) * BAND_ROWS, level.height);
        F lengths = F(), beyond = F(), largest = F();
        for (int y = band * BAND_ROWS; y < stop; ++y) {
            for (int start = 0; start < level.width; start += 32) {
                const I x = start + lane(), column = smaller(x, level.width - 1);
                const I index = 4 * (y * level.quads + (column >> 1)) + (column & 1);
                const F u = load(flow, index), v = load(flow, index + 2);
                const B inside = x < level.width;
                put_out(job, inside, 2 * number * size, y * level.width + x, u);
                put_out(job, inside, (2 * number + 1) * size, y * level.width + x, v);
                const F square = select(inside, u * u + v * v, F());
                const F side = select(inside, larger(larger(u, -u), larger(v, -v)), F());
                lengths = lengths + root(square);
                largest = larger(largest, square);
                beyond = beyond + select(side > job.bound_px, 1.0f, F());
            }
        }
        double *stats = job.stats + 3LL * task;
        set(stats, sum_of_lanes(lengths));
        set(stats + 1, (double)largest_of_lanes(largest));
        set(stats + 2, sum_of_lanes(beyond));
    }
}
