export async function doctorCommand(_options: object): Promise<number> { return 0; }
