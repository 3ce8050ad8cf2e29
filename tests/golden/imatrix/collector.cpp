// The collector of llama.cpp's own llama-imatrix, run on given tokens: made llama-imatrix.gguf and .dat.
//
// With L the llama.cpp of llama-cpp-python 0.3.36 (vendor/llama.cpp) and B a build of its libllama:
//   g++ -std=c++17 -O1 -ffunction-sections -I$L/common -I$L/include -I$L/ggml/include -I$L/vendor -I$L \
//     collector.cpp $L/common/imatrix-loader.cpp -L$B/bin -lllama -lggml -lggml-base -lggml-cpu \
//     -Wl,-rpath,$B/bin -Wl,--gc-sections -pthread -o collector
//   ./collector model.gguf tokens.txt out.gguf 128        (a fifth argument writes the older .dat)
// tokens.txt has token ids, as many as whole chunks need, the begin token already in place.
#define main static unused_main
#include "tools/imatrix/imatrix.cpp"
#undef main

#include <cstdarg>

// Logging without the rest of common/.
int common_log_get_verbosity_thold(void) { return 0; }
struct common_log * common_log_main() { return nullptr; }
void common_log_add(struct common_log *, enum ggml_log_level, const char * format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
}

int main(int argc, char ** argv) {
    llama_backend_init();
    llama_model * model = llama_model_load_from_file(argv[1], llama_model_default_params());
    const int context_size = atoi(argv[4]);
    common_params settings;
    settings.n_ctx = context_size;
    settings.n_parallel = 1;
    settings.out_file = argv[3];
    settings.n_out_freq = 1 << 30;
    settings.prompt_file = "words";
    settings.imat_dat = argc > 5 ? 1 : -1;
    g_collector.set_params(settings);

    llama_context_params options = llama_context_default_params();
    options.n_ctx = options.n_batch = options.n_ubatch = context_size;
    options.n_threads = options.n_threads_batch = 1;
    options.cb_eval = ik_collect_imatrix;
    llama_context * context = llama_init_from_model(model, options);

    std::vector<llama_token> tokens;
    std::ifstream file(argv[2]);
    for (llama_token token; file >> token;) {
        tokens.push_back(token);
    }
    for (size_t start = 0; start + context_size <= tokens.size(); start += context_size) {
        llama_memory_clear(llama_get_memory(context), true);
        llama_batch batch = llama_batch_init(context_size, 0, 1);
        for (int i = 0; i < context_size; i++) {
            batch.token[i] = tokens[start + i];
            batch.pos[i] = i;
            batch.n_seq_id[i] = 1;
            batch.seq_id[i][0] = 0;
            batch.logits[i] = 1;
        }
        batch.n_tokens = context_size;
        if (llama_decode(context, batch) != 0) {
            return 1;
        }
        llama_batch_free(batch);
    }
    g_collector.save_imatrix();
    return 0;
}
