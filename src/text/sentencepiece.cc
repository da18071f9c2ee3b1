// The face of libsentencepiece, and the only C++ of the program: it reads the pieces of a model. Its exceptions end
// here.
#include <cstdlib>
#include <cstring>
#include <exception>
#include <sentencepiece_processor.h>
#include <string>

extern "C" {
#include "fb3/tokenizer.h"
#include "spm_model.h"
}

namespace
{

fb3_status copy_pieces(const sentencepiece::SentencePieceProcessor &model, fb3_spm_pieces *pieces)
{
    const int count = model.GetPieceSize();
    FB3_REQUIRE(count > 0, FB3_INPUT, "holds no pieces; fetch the file again");
    size_t text_bytes = 0;
    for (int id = 0; id < count; id++) text_bytes += model.IdToPiece(id).size();
    pieces->piece = static_cast<fb3_piece *>(std::calloc(static_cast<size_t>(count), sizeof(fb3_piece)));
    pieces->text = static_cast<char *>(std::malloc(text_bytes + 1));
    FB3_REQUIRE(pieces->piece && pieces->text, FB3_FAILED, "out of memory for a vocabulary of %d pieces", count);

    char *end = pieces->text;
    for (int id = 0; id < count; id++) {
        const std::string &text = model.IdToPiece(id);
        std::memcpy(end, text.data(), text.size());
        pieces->piece[id] = fb3_piece{end, static_cast<int>(text.size()), model.GetScore(id)};
        end += text.size();
    }
    pieces->count = count;
    pieces->unknown = model.unk_id();
    return FB3_OK;
}

fb3_status read_pieces(fb3_spm_pieces *pieces, const void *vocabulary, size_t bytes)
{
    sentencepiece::SentencePieceProcessor model;
    // A std::string, because what LoadFromSerializedProto takes changes from version to version: string_view types of
    // several kinds, all of which a std::string converts to.
    const std::string serialized(static_cast<const char *>(vocabulary), bytes);
    const auto loaded = model.LoadFromSerializedProto(serialized);
    FB3_REQUIRE(loaded.ok(), FB3_INPUT, "libsentencepiece refuses it (%s); fetch the file again",
                loaded.ToString().c_str());
    return copy_pieces(model, pieces);
}

} // namespace

extern "C" fb3_status fb3_spm_pieces_read(fb3_spm_pieces *pieces, const void *vocabulary, size_t bytes)
{
    *pieces = fb3_spm_pieces{};
    fb3_status status = FB3_FAILED;
    try {
        status = read_pieces(pieces, vocabulary, bytes);
    } catch (const std::exception &error) {
        status = fb3_fail(FB3_FAILED, "libsentencepiece cannot read the pieces (%s)", error.what());
    }
    if (status != FB3_OK) fb3_spm_pieces_free(pieces);
    return status;
}

extern "C" void fb3_spm_pieces_free(fb3_spm_pieces *pieces)
{
    std::free(pieces->piece);
    std::free(pieces->text);
    *pieces = fb3_spm_pieces{};
}

extern "C" const char *fb3_sentencepiece_version(void)
{
    return FB3_SENTENCEPIECE_VERSION;
}
