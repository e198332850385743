/* Messages: little-endian numbers, and text as a u32 length and UTF-8 bytes. */
#include "launcher.h"

static const uint8_t *take(struct message *message, uint32_t size)
{
    const uint8_t *start = message->data + message->offset;

    if (message->broken || message->size - message->offset < size) {
        message->broken = TRUE;
        return NULL;
    }
    message->offset += size;
    return start;
}

uint8_t take_u8(struct message *message)
{
    const uint8_t *bytes = take(message, 1);

    return bytes ? *bytes : 0;
}

uint16_t take_u16(struct message *message)
{
    const uint8_t *bytes = take(message, 2);

    return bytes ? (uint16_t)(bytes[0] | bytes[1] << 8) : 0;
}

uint32_t take_u32(struct message *message)
{
    uint32_t low = take_u16(message), high = take_u16(message);

    return low | high << 16;
}

WCHAR *take_text(struct message *message)
{
    uint32_t size = take_u32(message);
    const uint8_t *bytes = take(message, size);
    WCHAR *text;
    int length = 0;

    if (!bytes) return NULL;
    for (uint32_t index = 0; index < size; index++)
        if (!bytes[index]) message->broken = TRUE;
    if (size) length = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, (const char *)bytes, (int)size, NULL, 0);
    if (size && !length) message->broken = TRUE;
    if (message->broken) return NULL;
    text = allocate(((size_t)length + 1) * sizeof(WCHAR));
    if (size) MultiByteToWideChar(CP_UTF8, 0, (const char *)bytes, (int)size, text, length);
    text[length] = 0;
    return text;
}

static void put(struct message *message, const void *bytes, uint32_t size)
{
    if (MAX_MESSAGE - message->size < size) {
        message->broken = TRUE;
        return;
    }
    memcpy(message->data + message->size, bytes, size);
    message->size += size;
}

void put_u8(struct message *message, uint8_t value)
{
    put(message, &value, sizeof(value));
}

void put_u32(struct message *message, uint32_t value)
{
    put(message, &value, sizeof(value));
}

void put_u64(struct message *message, uint64_t value)
{
    put(message, &value, sizeof(value));
}

void put_text(struct message *message, const WCHAR *text)
{
    char bytes[2048];
    int size = WideCharToMultiByte(CP_UTF8, 0, text, -1, bytes, sizeof(bytes), NULL, NULL);

    if (size) size--;
    put_u32(message, (uint32_t)size);
    put(message, bytes, (uint32_t)size);
}

void answer_ok(int socket)
{
    uint8_t type = OK;

    linux_send(socket, &type, sizeof(type));
}

void answer_number(int socket, uint8_t type, uint32_t number)
{
    uint8_t bytes[5] = {type};

    memcpy(bytes + 1, &number, sizeof(number));
    linux_send(socket, bytes, sizeof(bytes));
}

void answer_failed(int socket, DWORD error, const WCHAR *text)
{
    uint8_t bytes[4096];
    struct message message = {bytes, 0, 0, FALSE};

    put_u8(&message, FAILED);
    put_u32(&message, error);
    put_text(&message, text);
    linux_send(socket, bytes, message.size);
}
